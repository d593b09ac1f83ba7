"""`postern config`: check a file, show what is in force, reload.

`config check FILE` needs no daemon: it is what one runs before a file is put in place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.analysis.escape import show
from gateway.cli.options import Subparsers, add_common, ask, client_of
from gateway.cli.render import Column, Output, counted, object_of, rows_of, text
from gateway.control.protocol import JsonValue

_COLUMNS: Final = (
    Column("SECTION", "section"),
    Column("NAME", "name"),
    Column("OPTION", "option"),
    Column("VALUE", "value", least=12),
    Column("UNIT", "unit", rank=2),
    Column("FROM", "source", rank=1),
    Column("MEANING", "doc", least=16, rank=3),
)
_LONGEST_SENTENCE: Final = 2000


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern config check|show|reload`."""
    parser = subparsers.add_parser(
        "config", help="check, show or reload the configuration", description="The configuration."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("check", help="print everything that is wrong with a file")
    verb.add_argument(
        "file", metavar="FILE", nargs="?", help="a file, or - for standard input; without it posternd checks its own"
    )
    add_common(verb)
    verb.set_defaults(run=run_check)
    verb = verbs.add_parser("show", help="the options that are in force (secrets are shown as …)")
    verb.add_argument("--effective", action="store_true", help="with every default, and where each value came from")
    verb.add_argument("section", metavar="SECTION", nargs="?", help="only sections of this type, such as zone")
    add_common(verb)
    verb.set_defaults(run=run_show)
    verb = verbs.add_parser("reload", help="read the file again and apply what is different")
    add_common(verb)
    verb.set_defaults(run=run_reload)


def run_check(arguments: argparse.Namespace) -> int:
    """1 when there are problems."""
    if arguments.file is None:
        with client_of(arguments) as client:
            answer = client.call("config.check")
        problems = _sentences(object_of(answer).get("problems"))
        return _report(arguments, problems, [])
    problems, warnings = _check_file(arguments.file)
    return _report(arguments, problems, warnings)


def run_show(arguments: argparse.Namespace) -> int:
    """The options in force; 1 when no section of the asked type exists."""
    answer = ask(arguments, "config.show", {"effective": arguments.effective})
    rows = [row for row in rows_of(answer) if arguments.section in (None, row.get("section"))]
    output = Output()
    if arguments.json:
        output.json({"rows": [dict(row) for row in rows]})
    elif rows:
        columns = [column for column in _COLUMNS if any(_filled(row.get(column.field)) for row in rows)]
        output.table(rows, columns)
    if not rows and arguments.section is not None:
        print(f"postern: no option of a section {show(arguments.section)} is set", file=sys.stderr)
        return 1
    return 0


def run_reload(arguments: argparse.Namespace) -> int:
    """1 when the file has problems; then the running configuration stays as it was."""
    answer = ask(arguments, "config.reload")
    changed = _sentences(object_of(answer).get("changed"))
    problems = _sentences(object_of(answer).get("problems"))
    output = Output()
    if arguments.json:
        output.json(answer)
    elif problems:
        for problem in problems:
            output.line(problem)
        output.line(f"{counted(len(problems), 'problem')}; the running configuration stays as it was")
    elif changed:
        for change in changed:
            output.line(change)
        output.line(f"applied {counted(len(changed), 'change')}")
    else:
        output.line("nothing is different")
    return 1 if problems else 0


def _check_file(name: str) -> tuple[list[str], list[str]]:
    # The configuration's whole tree of types is only needed here.
    from gateway.config_loader import ConfigError, load

    raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    shown_name = "standard input" if name == "-" else name
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        return [f"{shown_name}:{line}: octet {raw[err.start]:#04x} is not UTF-8: save the file as UTF-8"], []
    try:
        loaded = load(content, shown_name)
    except ConfigError as err:
        return [str(problem) for problem in err.problems], []
    return [], [str(warning) for warning in loaded.warnings]


def _report(arguments: argparse.Namespace, problems: Sequence[str], warnings: Sequence[str]) -> int:
    output = Output()
    if arguments.json:
        answer: dict[str, JsonValue] = {"problems": list(problems), "warnings": list(warnings)}
        output.json(answer)
        return 1 if problems else 0
    for warning in warnings:
        output.line(f"warning: {show(warning, _LONGEST_SENTENCE)}")
    for problem in problems:
        output.line(show(problem, _LONGEST_SENTENCE))
    output.line(counted(len(problems), "problem") if problems else "no problems")
    return 1 if problems else 0


def _sentences(value: JsonValue) -> list[str]:
    if not isinstance(value, list):
        return []
    return [show(item, _LONGEST_SENTENCE) if isinstance(item, str) else text(item) for item in value]


def _filled(value: JsonValue) -> bool:
    return value is not None and value != ""
