"""Postern's gateway: everything that runs with power over the network, and the analysis of captures."""

__version__ = "0.1.0"
