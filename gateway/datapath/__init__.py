"""The datapath: the kernel's side of the gate. Begin with `datapath` (the shell) and `ruleset` (a packet's way)."""
