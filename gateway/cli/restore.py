"""`postern restore`: take back what a backup holds."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from gateway.cli.backup import passphrase
from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern restore FILE`."""
    parser = subparsers.add_parser(
        "restore", help="take back what a backup holds", description="Take back what `postern backup` has written."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the backup")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask for the passphrase and restore."""
    data = base64.b64encode(arguments.file.read_bytes()).decode("ascii")
    answer = ask(arguments, "backup.restore", {"passphrase": passphrase(again=False), "data": data})
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line("restored")
    return 0
