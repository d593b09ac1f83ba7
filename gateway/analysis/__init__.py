"""Capture analysis: from the bytes of a capture file to a report of what is wrong in it, where, and how sure we are.

Nothing here imports another part of the gateway; the web pages and the `postern` command use `engine.analyze`.
"""
