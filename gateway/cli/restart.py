"""`postern restart`: start the device anew."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern restart`."""
    parser = subparsers.add_parser("restart", help="start the device anew", description="Start the device anew.")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Start anew."""
    answer = ask(arguments, "device.restart")
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line("the device starts anew")
    return 0
