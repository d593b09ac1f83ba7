"""postern-system: the few acts that need root, done for posternd alone."""
