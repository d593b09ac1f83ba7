"""Postern's gateway: everything that runs with power over the network, and the analysis of captures."""
