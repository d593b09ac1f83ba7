"""`postern users`: local accounts. Passwords are asked for or read from standard input, never taken from arguments.

Arguments of a process are readable by every user of the machine and end in the shell's history.
"""

from __future__ import annotations

import argparse
import sys
import time

from gateway.cli.options import Subparsers, add_common, add_limits, ask, limits_of, span
from gateway.cli.render import Output, counted, generic_columns, rows_of, text
from gateway.control.protocol import BAD_PARAMS, ControlError, Params


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern users add|list|passwd|remove`."""
    parser = subparsers.add_parser(
        "users",
        help="local accounts",
        description="Local accounts. A password is asked for, or read from standard input when that is no terminal.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("add", help="make an account")
    verb.add_argument("username", metavar="NAME")
    verb.add_argument("--devices", type=int, metavar="N", help="how many devices may be online at once")
    verb.add_argument("--valid-for", type=span, metavar="TIME", help="how long the account is good, such as 7d")
    verb.add_argument("--note", metavar="TEXT", help="words for operators")
    add_limits(verb)
    add_common(verb)
    verb.set_defaults(run=run_add)
    verb = verbs.add_parser("list", help="all accounts")
    add_common(verb)
    verb.set_defaults(run=run_list)
    verb = verbs.add_parser("passwd", help="set another password")
    verb.add_argument("username", metavar="NAME")
    add_common(verb)
    verb.set_defaults(run=run_passwd)
    verb = verbs.add_parser("remove", help="remove an account")
    verb.add_argument("username", metavar="NAME")
    add_common(verb)
    verb.set_defaults(run=run_remove)


def run_add(arguments: argparse.Namespace) -> int:
    """Make an account; that it exists already is the daemon's error."""
    params: Params = {"username": arguments.username, **limits_of(arguments)}
    if arguments.devices is not None:
        params["devices"] = arguments.devices
    if arguments.valid_for is not None:
        params["valid_until_unix"] = time.time() + arguments.valid_for
    if arguments.note is not None:
        params["note"] = arguments.note
    params["password"] = read_password()
    return _change(arguments, "users.add", params, f"added user {text(arguments.username)}")


def run_passwd(arguments: argparse.Namespace) -> int:
    """Set a password."""
    params: Params = {"username": arguments.username, "password": read_password()}
    return _change(arguments, "users.passwd", params, f"changed the password of {text(arguments.username)}")


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove an account."""
    params: Params = {"username": arguments.username}
    return _change(arguments, "users.remove", params, f"removed user {text(arguments.username)}")


def run_list(arguments: argparse.Namespace) -> int:
    """All accounts."""
    answer = ask(arguments, "users.list")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, generic_columns(rows, ("username",)))
    output.line(counted(len(rows), "user"))
    return 0


def read_password() -> str:
    """Ask twice on a terminal, else read one line; raises ControlError(bad_params) for none, or two that differ."""
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise ControlError(BAD_PARAMS, "no password on standard input")
        return password
    import getpass  # termios is only needed here

    password = getpass.getpass("Password: ")
    if not password:
        raise ControlError(BAD_PARAMS, "no password was given")
    if getpass.getpass("The same again: ") != password:
        raise ControlError(BAD_PARAMS, "the two passwords differ; nothing was changed")
    return password


def _change(arguments: argparse.Namespace, method: str, params: Params, done: str) -> int:
    answer = ask(arguments, method, params)
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line(done)
    return 0
