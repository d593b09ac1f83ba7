"""The control socket: how the portal, the administration and the command line speak with the daemon."""
