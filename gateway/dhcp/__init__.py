"""Addresses for guests by DHCP: codec, pool, leases, the server core and its sockets (see `v4_server`)."""
