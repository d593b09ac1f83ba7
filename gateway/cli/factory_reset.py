"""`postern factory-reset`: everything that was set on this device is removed."""

from __future__ import annotations

import argparse
import socket

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern factory-reset`."""
    parser = subparsers.add_parser(
        "factory-reset",
        help="remove everything that was set on this device",
        description="Start anew as from the factory: configuration, accounts, vouchers, sessions and keys are removed. "
        "The name of the device confirms it.",
    )
    parser.add_argument("--confirm", metavar="HOSTNAME", help="the device's name; asked for when it is not given")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask for the name and reset."""
    name = arguments.confirm
    if name is None:
        name = input(f"Everything is removed. Type {socket.gethostname()} to go on: ").strip()
    answer = ask(arguments, "device.reset", {"hostname": name})
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line("the device starts anew as from the factory")
    return 0
