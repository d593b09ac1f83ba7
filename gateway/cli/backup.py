"""`postern backup`: what makes this gateway in one file, sealed with a passphrase."""

from __future__ import annotations

import argparse
import base64
import getpass
import os
import sys
from pathlib import Path

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern backup FILE`."""
    parser = subparsers.add_parser(
        "backup",
        help="write what makes this gateway to a file",
        description="Write configuration, users, vouchers with their key, known devices, administrators with their "
        "tokens, themes and the certificates of its pages to a file, encrypted with a passphrase that is asked "
        "for (or read from standard input when that is no terminal). Sessions, logs and captures are not in it.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write; it must not be there yet")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask for the passphrase, then for the backup, and write it for the owner's eyes only."""
    answer = ask(arguments, "backup.create", {"passphrase": passphrase(again=True)})
    data = base64.b64decode(str(answer["data"])) if isinstance(answer, dict) else b""
    with os.fdopen(os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    output = Output()
    if arguments.json:
        output.json({"file": str(arguments.file), "bytes": len(data)})
    else:
        output.line(f"{arguments.file}: {len(data)} octets")
    return 0


def passphrase(*, again: bool) -> str:
    """Ask for a passphrase, twice when it is a new one; from standard input when that is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    phrase = getpass.getpass("Passphrase: ")
    if again and getpass.getpass("Again: ") != phrase:
        raise SystemExit("the two are not the same")
    return phrase
