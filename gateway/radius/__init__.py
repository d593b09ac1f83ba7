"""RADIUS: asking servers, telling them (accounting), and being told by them (dynamic authorization)."""
