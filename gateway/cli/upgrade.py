"""`postern upgrade`: a new version of an image, tried once before it stays."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Final

from gateway.cli.options import Subparsers, add_common, client_of
from gateway.cli.render import Output, text

LIMIT_S: Final = 900.0  # a slow card takes minutes for a slot


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern upgrade FILE`."""
    parser = subparsers.add_parser(
        "upgrade",
        help="install an upgrade bundle and start anew",
        description="Verify an upgrade bundle, write it into the other slot and start anew to try it. "
        "When the new version does not prove that it works, the device goes back by itself.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the bundle, postern-VERSION-BOARD.upgrade")
    parser.add_argument("--older", action="store_true", help="also when it is older than what runs")
    parser.add_argument(
        "--place", type=Path, default=Path("/var/lib/postern/upgrade"), help="where the bundle is put for posternd"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Put the bundle into its place and ask for it to be installed."""
    goal = arguments.place / "bundle"
    part = goal.with_suffix(".part")
    part.unlink(missing_ok=True)  # the kernel lets not even root write what another user left in such a directory
    with arguments.file.open("rb") as source, part.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    part.chmod(0o640)
    part.rename(goal)
    try:
        with client_of(arguments) as client:
            answer = client.call("device.upgrade", {"older": arguments.older}, LIMIT_S)
    finally:
        goal.unlink(missing_ok=True)
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        story = answer if isinstance(answer, dict) else {}
        output.line(
            f"version {text(story.get('version'))} is in slot {text(story.get('slot'))}; the device starts anew with it"
        )
        output.line("postern status says afterwards whether it stayed")
    return 0
