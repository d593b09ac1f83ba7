"""`postern debug`: looking into the running daemon."""

from __future__ import annotations

import argparse
from typing import Final

from gateway.cli.options import Subparsers, add_common, ask, client_of
from gateway.cli.render import Column, Output, counted, generic_pairs, object_of, octets, rows_of, text

MAX_SECONDS: Final = 60.0  # the daemon's own bound
_TYPES: Final = (Column("COUNT", "count", right=True), Column("TYPE", "type"))
_LINES: Final = (
    Column("MEMORY", "bytes", octets, right=True),
    Column("COUNT", "count", right=True),
    Column("ALLOCATED AT", "where"),
)
_TASKS: Final = (Column("TASK", "name", least=12), Column("WAITS IN", "where", least=20))


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern debug profile|heap|tasks|rate-limiters`."""
    parser = subparsers.add_parser(
        "debug",
        help="profile, heap, tasks and rate limiters of posternd",
        description="Look into the running posternd. It goes on working, a few per cent slower during a profile.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("profile", help="where it spends its time")
    verb.add_argument("--seconds", type=float, default=5.0, metavar="N", help="how long to look (5; at most 60)")
    add_common(verb)
    verb.set_defaults(run=run_profile)
    verb = verbs.add_parser("heap", help="what its memory is made of")
    verb.add_argument("--trace", choices=("start", "stop"), help="begin or end noting where memory is allocated (slow)")
    add_common(verb)
    verb.set_defaults(run=run_heap)
    verb = verbs.add_parser("tasks", help="what it is waiting for")
    add_common(verb)
    verb.set_defaults(run=run_tasks)
    verb = verbs.add_parser("rate-limiters", help="who is being held back")
    add_common(verb)
    verb.set_defaults(run=run_rate_limiters)


def run_profile(arguments: argparse.Namespace) -> int:
    """Wait for the profile and print it."""
    with client_of(arguments) as client:
        wait_s = min(MAX_SECONDS, max(0.0, arguments.seconds)) + 30.0
        answer = client.call("debug.profile", {"seconds": arguments.seconds}, timeout_s=wait_s)
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.stream.write(str(object_of(answer).get("text", "")))
    return 0


def run_heap(arguments: argparse.Namespace) -> int:
    """Objects by type, and lines that allocate while tracing is on."""
    answer = ask(arguments, "debug.heap", {"trace": arguments.trace} if arguments.trace else {})
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    heap = object_of(answer)
    tracing = "being traced" if heap.get("tracing") else "not traced (--trace start)"
    output.line(f"{octets(heap.get('memory_rss_bytes'))} of memory; allocations are {tracing}")
    if heap.get("frozen"):
        output.line(f"{text(heap.get('frozen'))} objects from its start are not listed by type")
    output.line()
    output.table(rows_of(answer, "types"), _TYPES)
    lines = rows_of(answer, "lines")
    if lines:
        output.line()
        output.table(lines, _LINES)
    return 0


def run_tasks(arguments: argparse.Namespace) -> int:
    """All tasks."""
    answer = ask(arguments, "debug.tasks")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, _TASKS)
    total = object_of(answer).get("total")
    output.line(counted(total, "task") if isinstance(total, int) else text(total))
    return 0


def run_rate_limiters(arguments: argparse.Namespace) -> int:
    """All rate limiters."""
    answer = ask(arguments, "debug.rate_limiters")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    limiters = []
    for row in rows_of(answer):
        state = {name: value for name, value in row.items() if name != "name" and value not in (None, {}, [])}
        told = ", ".join(f"{name} {value}" for name, value in generic_pairs(state))
        limiters.append((text(row.get("name")), told or "nothing held back"))
    if limiters:
        output.pairs(limiters)
    else:
        output.line("there are no rate limiters")
    return 0
