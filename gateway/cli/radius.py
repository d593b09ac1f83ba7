"""`postern radius`: RADIUS servers and queued accounting."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output, generic_pairs, object_of, rows_of
from gateway.cli.servers import print_servers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern radius status`."""
    parser = subparsers.add_parser(
        "radius", help="RADIUS servers and queued accounting", description="RADIUS servers and queued accounting."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("status", help="state of each server, and what waits to be delivered")
    add_common(verb)
    verb.set_defaults(run=run_status)


def run_status(arguments: argparse.Namespace) -> int:
    """The servers and the queue."""
    answer = ask(arguments, "radius.status")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    servers = rows_of(answer, "servers")
    if servers:
        print_servers(output, servers)
    else:
        output.line("no RADIUS server is configured")
    queue = object_of(answer, "queue")
    if queue:
        output.line()
        output.heading("ACCOUNTING QUEUE")
        output.pairs(generic_pairs(queue))
    return 0
