"""`postern ruleset`: the packet filter's rules, and whether the kernel takes them."""

from __future__ import annotations

import argparse

from gateway.analysis.escape import show
from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output, counted, object_of


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern ruleset print|check`."""
    parser = subparsers.add_parser(
        "ruleset", help="the packet filter's rules", description="The packet filter's rules, as posternd renders them."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("print", help="print them in nft's language, each with its reason")
    add_common(verb)
    verb.set_defaults(run=run_print)
    verb = verbs.add_parser("check", help="let nft try them without loading, and compare with the kernel")
    add_common(verb)
    verb.set_defaults(run=run_check)


def run_print(arguments: argparse.Namespace) -> int:
    """The ruleset's text, line by line as it is."""
    answer = ask(arguments, "ruleset.print")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    for line in str(object_of(answer).get("text", "")).splitlines():
        output.line(show(line.expandtabs(), 4000))
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """1 when there are problems."""
    answer = ask(arguments, "ruleset.check")
    found = object_of(answer).get("problems")
    problems = [show(str(problem), 2000) for problem in found] if isinstance(found, list) else []
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        for problem in problems:
            output.line(problem)
        output.line(counted(len(problems), "problem") if problems else "no problems")
    return 1 if problems else 0
