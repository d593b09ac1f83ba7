"""`postern admins`: who may administer through the web interface; and the way back in for who has lost theirs."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Output, counted, generic_columns, rows_of, text
from gateway.cli.users import read_password
from gateway.control.protocol import Params


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern admins list|add|passwd|remove|reset-totp`."""
    parser = subparsers.add_parser(
        "admins",
        help="who may administer",
        description="Administrators of the web interface. A password is asked for, or read from standard input.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("list", help="all administrators")
    add_common(verb)
    verb.set_defaults(run=run_list)
    verb = verbs.add_parser("add", help="make an administrator")
    verb.add_argument("name", metavar="NAME")
    verb.add_argument(
        "--role",
        choices=("viewer", "operator", "administrator"),
        default="viewer",
        help="viewer looks, operator also has guests and vouchers, administrator everything (default: viewer)",
    )
    add_common(verb)
    verb.set_defaults(run=run_add)
    verb = verbs.add_parser("passwd", help="set another password; ends the account's logins")
    verb.add_argument("name", metavar="NAME")
    add_common(verb)
    verb.set_defaults(run=run_passwd)
    verb = verbs.add_parser("remove", help="remove an administrator")
    verb.add_argument("name", metavar="NAME")
    add_common(verb)
    verb.set_defaults(run=run_remove)
    verb = verbs.add_parser("reset-totp", help="switch off the second factor of somebody who has lost it")
    verb.add_argument("name", metavar="NAME")
    add_common(verb)
    verb.set_defaults(run=run_reset_totp)


def run_list(arguments: argparse.Namespace) -> int:
    """All administrators."""
    answer = ask(arguments, "accounts.list")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, generic_columns(rows, ("name", "role")))
    output.line(counted(len(rows), "administrator"))
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """Make an administrator."""
    params: Params = {"name": arguments.name, "role": arguments.role, "password": read_password()}
    return _change(arguments, "accounts.add", params, f"added {arguments.role} {text(arguments.name)}")


def run_passwd(arguments: argparse.Namespace) -> int:
    """Set a password."""
    params: Params = {"name": arguments.name, "password": read_password()}
    return _change(arguments, "accounts.passwd", params, f"changed the password of {text(arguments.name)}")


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove an administrator."""
    return _change(arguments, "accounts.remove", {"name": arguments.name}, f"removed {text(arguments.name)}")


def run_reset_totp(arguments: argparse.Namespace) -> int:
    """Switch a second factor off."""
    done = f"{text(arguments.name)} logs in with name and password alone"
    return _change(arguments, "accounts.totp_remove", {"name": arguments.name}, done)


def _change(arguments: argparse.Namespace, method: str, params: Params, done: str) -> int:
    answer = ask(arguments, method, params)
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line(done)
    return 0
