"""`postern metrics`: what Prometheus would read now."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output, object_of


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern metrics`."""
    parser = subparsers.add_parser(
        "metrics", help="metrics as Prometheus reads them", description="Metrics as Prometheus reads them."
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the exposition text."""
    answer = ask(arguments, "metrics.text")
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.stream.write(str(object_of(answer).get("text", "")))
    return 0
