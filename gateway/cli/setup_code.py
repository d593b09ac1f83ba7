"""`postern setup-code`: the code that the web interface asks for when there is no administrator yet."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output, object_of, text


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern setup-code`."""
    parser = subparsers.add_parser(
        "setup-code",
        help="the code for the first administrator",
        description="Print the code that the administration page asks for while there is no administrator.",
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it alone, so that a script can take it."""
    answer = ask(arguments, "admin.setup_code")
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line(text(object_of(answer).get("code")))
    return 0
