"""Upgrading an image: two slots, a signed bundle, one trial start, the way back. Used by postern-system, as root."""
