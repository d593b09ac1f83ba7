"""The session core: what a client may do, decided from events alone (see `machine`)."""
