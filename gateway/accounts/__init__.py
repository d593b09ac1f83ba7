"""Accounts that the gateway keeps itself: local users with hashed passwords and limits."""
