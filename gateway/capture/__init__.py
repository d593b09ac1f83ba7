"""Live capture of one interface or one client to a file, bounded in bytes, packets and time."""
