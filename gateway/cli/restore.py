"""`postern restore`: take back what a backup holds, after a look at it."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from gateway.cli.backup import passphrase
from gateway.cli.options import Subparsers, add_common, client_of
from gateway.cli.render import Output, moment, object_of, text
from gateway.control.protocol import JsonValue

PIECE_BYTES = 500_000  # fits a frame in base64
LIMIT_S = 120.0


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern restore FILE`."""
    parser = subparsers.add_parser(
        "restore",
        help="take back what a backup holds",
        description="Take back what `postern backup` has written: configuration, users, vouchers with their key, known "
        "devices, administrators with their tokens, themes and the certificates of its pages. It is shown first "
        "and asked about. All of it is put in place or nothing is; the gateway starts anew for it, guests who are "
        "online stay online, and administrators log in again.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the backup")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can answer")
    parser.add_argument("--look", action="store_true", help="only say what is in it")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Hand the file over, show what is in it, ask, and have it put back."""
    data = arguments.file.read_bytes()
    phrase = passphrase(again=False)
    output = Output()
    with client_of(arguments) as client:
        for offset in range(0, max(1, len(data)), PIECE_BYTES):
            piece = base64.b64encode(data[offset : offset + PIECE_BYTES]).decode("ascii")
            client.call("backup.put", {"offset": offset, "data": piece})
        found = client.call("backup.preview", {"passphrase": phrase}, LIMIT_S)
        if arguments.look and arguments.json:
            output.json(found)
            return 0
        if not arguments.json:
            _print(output, found)
        if arguments.look:
            return 0
        if object_of(found).get("problems"):
            output.line("It cannot be put back here as it is; nothing was changed.")
            return 1
        if not arguments.yes and not _agreed():
            output.line("Nothing was changed.")
            return 1
        answer = client.call("backup.restore", {"ticket": object_of(found).get("ticket"), "confirm_s": 0}, LIMIT_S)
    if arguments.json:
        output.json(answer)
    else:
        output.line("restored; the gateway starts anew" if object_of(answer).get("restarting") else "restored")
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("Give --yes to put it back without being asked.", file=sys.stderr)
        return False
    return input("Put it in place of what is here now? [y/N] ").strip().lower() in ("y", "yes")


def _print(output: Output, found: JsonValue) -> None:
    told = object_of(found)
    names = told.get("administrators")
    themes = told.get("themes")
    made = told.get("made_unix")
    output.pairs(
        [
            ("made", f"{moment(made) if made else 'unknown'} on {text(told.get('hostname') or 'an unknown device')}"),
            ("administrators", ", ".join(map(str, names)) if isinstance(names, list) and names else "none"),
            ("users", text(told.get("users"))),
            ("vouchers", f"{text(told.get('vouchers'))} in {text(told.get('batches'))} batches"),
            ("known devices", text(told.get("devices"))),
            ("themes", ", ".join(map(str, themes)) if isinstance(themes, list) and themes else "none"),
            ("certificate", "yes" if told.get("certificate") else "no"),
            ("operator's certificate", "yes" if told.get("operators_certificate") else "no"),
        ]
    )
    for title, name in (("changes", "changes"), ("problems", "problems")):
        rows = told.get(name)
        if isinstance(rows, list) and rows:
            output.line(f"{title} of the configuration:")
            for row in rows:
                output.line(f"  {row}")
