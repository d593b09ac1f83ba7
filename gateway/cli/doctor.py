"""`postern doctor`: what is wrong, in sentences with the way to mend it; also when posternd does not run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from gateway.analysis.escape import show
from gateway.cli.options import Subparsers, add_common, client_of
from gateway.cli.render import Output, Row, counted, rows_of, text
from gateway.control.protocol import UNREACHABLE, ControlError, JsonValue

DEFAULT_CONFIG: Final = Path("/etc/config/postern")  # as posternd has it, whose modules take long to load
_LONGEST_SENTENCE: Final = 2000
_PATIENCE_S: Final = 20.0
_MARKS: Final = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL", "skipped": "-   "}


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is wrong, and how to mend it",
        description="Check the gateway and its surroundings. When posternd does not run, whatever can be checked "
        "without it is.",
        epilog="Exit status: 0 when nothing failed (warnings may be there), 1 otherwise.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"configuration, where posternd does not run ({DEFAULT_CONFIG})",
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the rows; 0 when none is a failure."""
    rows = _rows(arguments)
    output = Output()
    if arguments.json:
        output.json({"rows": [dict(row) for row in rows]})
    else:
        _print(output, rows)
    return 1 if any(row.get("state") == "fail" for row in rows) else 0


def _rows(arguments: argparse.Namespace) -> list[Row]:
    try:
        with client_of(arguments) as client:
            return rows_of(client.call("doctor.run", timeout_s=_PATIENCE_S))
    except ControlError as err:
        if err.code != UNREACHABLE:
            raise
        from gateway.doctor.outside import examine_box  # a daemon that answers makes this needless

        why = err.message.partition(";")[0]
        return [dict[str, JsonValue](row.as_json()) for row in examine_box(arguments.config, why)]


def _sentence(value: JsonValue) -> str:
    """Whole, and safe for a terminal: it may repeat what a stranger's device said."""
    return show(str(value), _LONGEST_SENTENCE)


def _print(output: Output, rows: list[Row]) -> None:
    for row in rows:
        state = text(row.get("state"))
        output.line(f"{_MARKS.get(state, '?   ')}  {text(row.get('check'))}: {_sentence(row.get('text'))}")
        if state != "ok" and row.get("remedy"):
            output.line(f"      -> {_sentence(row.get('remedy'))}")
    found = [sum(row.get("state") == state for row in rows) for state in ("fail", "warn", "ok", "skipped")]
    output.line()
    output.line(
        f"{counted(found[0], 'fault')}, {counted(found[1], 'warning')}, {found[2]} in order, {found[3]} not checked"
    )
