"""The `postern` command.

Each command module has `add_parser(subparsers)`, which adds its parser with `set_defaults(run=function)`;
`function(arguments: argparse.Namespace) -> int` does the work and returns the exit status. `main` imports only the
module whose command was asked for, so that `postern status` does not pay for the others. What goes wrong is raised:
ControlError for what the daemon refuses, OSError for files; `main` turns both into one line and an exit status.
"""
