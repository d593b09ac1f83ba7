"""The web processes: what guests reach (`portal`) and the HTTP server beneath it.

A web process parses octets from strangers and holds no power: it opens no configuration file and asks the daemon for
everything through `gateway.control.client`.
"""
