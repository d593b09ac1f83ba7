"""The operator's own look of the guests' pages."""
