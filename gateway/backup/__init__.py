"""Backups: what makes this gateway, sealed with a passphrase, and the way back that happens whole or not at all."""
