"""`postern vouchers`: make, list, revoke and remove vouchers.

What `create` prints are the codes, one a line, and nothing else: `postern vouchers create 20 >codes.txt`. Words about
them go to standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from gateway.cli.options import Subparsers, add_common, add_limits, ask, limits_of, span
from gateway.cli.render import Column, Output, counted, duration, moment, object_of, octets, rows_of, text
from gateway.control.protocol import JsonValue, Params

STATES: Final = ("unused", "active", "used-up", "expired", "revoked")
_VOUCHERS: Final = (
    Column("ID", "id"),
    Column("CODE", "code"),
    Column("STATE", "state"),
    Column("FIRST USED", "first_used_unix", moment, rank=2),
    Column("ENDS", "ends_unix", moment, rank=1),
    Column("USED", "used_s", duration, right=True, rank=3),
    Column("UP", "upload_bytes", octets, right=True, rank=5),
    Column("DOWN", "download_bytes", octets, right=True, rank=4),
    Column("ONLINE", "online", right=True, rank=6),
    Column("NOTE", "note", least=8, rank=7),
)
_BATCHES: Final = (
    Column("BATCH", "batch", right=True),
    Column("MADE", "created_unix", moment, rank=2),
    Column("BY", "created_by", rank=5),
    Column("COUNT", "count", right=True),
    Column("USED", "used", right=True),
    Column("REVOKED", "revoked", right=True),
    Column("VALID FOR", "validity_s", duration, right=True, rank=3),
    Column("UNTIL", "expires_unix", moment, rank=4),
    Column("ZONE", "zone", rank=6),
    Column("NOTE", "note", least=8, rank=1),
)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern vouchers create|batches|list|revoke|remove`."""
    parser = subparsers.add_parser(
        "vouchers",
        help="codes that let guests in",
        description="Codes that let guests in. Time, octets and devices are the voucher's, wherever it is used.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("create", help="make a batch and print its codes")
    verb.add_argument("count", type=int, metavar="COUNT", help="how many")
    verb.add_argument("--letters", action="store_true", help="codes of letters instead of digits")
    verb.add_argument("--length", type=int, metavar="N", help="characters of a code (10 digits, 8 letters)")
    verb.add_argument("--devices", type=int, metavar="N", help="devices online at once (1); 0: no limit")
    verb.add_argument("--valid-for", type=span, metavar="TIME", help="how long from the first use, such as 24h or 7d")
    verb.add_argument("--expires-in", type=span, metavar="TIME", help="from now on, used or not, such as 365d")
    verb.add_argument("--zone", help="good in this zone only")
    verb.add_argument("--note", metavar="TEXT", help="words for operators")
    add_limits(verb)
    add_common(verb)
    verb.set_defaults(run=run_create)
    verb = verbs.add_parser("batches", help="what was made")
    add_common(verb)
    verb.set_defaults(run=run_batches)
    verb = verbs.add_parser("list", help="vouchers with their codes")
    verb.add_argument("--batch", type=int, metavar="N", help="only those of this batch")
    verb.add_argument("--state", choices=STATES, help="only in this state")
    verb.add_argument("--search", metavar="TEXT", help="part of a code, a MAC address, or the note")
    verb.add_argument("--limit", type=int, metavar="N", help="at most N of them")
    add_common(verb)
    verb.set_defaults(run=run_list)
    for name, run, about in (
        ("revoke", run_revoke, "make a voucher (3-17) or a batch (3) good for nothing"),
        ("remove", run_remove, "remove a batch wholly"),
    ):
        verb = verbs.add_parser(name, help=about)
        verb.add_argument("which", metavar="ID" if name == "revoke" else "BATCH")
        if name == "revoke":
            verb.add_argument("--end-sessions", action="store_true", help="sessions under it end now")
        add_common(verb)
        verb.set_defaults(run=run)


def run_create(arguments: argparse.Namespace) -> int:
    """Make a batch."""
    params: Params = {"count": arguments.count, **limits_of(arguments)}
    if arguments.letters:
        params["alphabet"] = "letters"
    for name, value in (
        ("length", arguments.length),
        ("devices", arguments.devices),
        ("validity_s", arguments.valid_for),
        ("expires_unix", None if arguments.expires_in is None else time.time() + arguments.expires_in),
        ("zone", arguments.zone),
        ("note", arguments.note),
    ):
        if value is not None:
            params[name] = value
    reply = ask(arguments, "vouchers.create", params)
    output = Output()
    if arguments.json:
        output.json(reply)
        return 0
    answer = object_of(reply)
    codes = answer.get("codes")
    for code in codes if isinstance(codes, list) else []:
        output.line(text(code))
    print(f"made batch {answer.get('batch')} of {counted(_whole(answer.get('count')), 'voucher')}", file=sys.stderr)
    return 0


def run_batches(arguments: argparse.Namespace) -> int:
    """All batches."""
    answer = ask(arguments, "vouchers.batches")
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, _BATCHES)
    output.line(f"{len(rows)} batch" + ("" if len(rows) == 1 else "es"))
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Vouchers, as the daemon pages them."""
    params: Params = {"limit": 10_000 if arguments.limit is None else arguments.limit}
    for name in ("batch", "state", "search"):
        if getattr(arguments, name) is not None:
            params[name] = getattr(arguments, name)
    answer = ask(arguments, "vouchers.list", params)
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, _VOUCHERS)
    total = _whole(object_of(answer).get("total"))
    output.line(counted(total, "voucher") + (f", the first {len(rows)} shown" if len(rows) < total else ""))
    return 0


def run_revoke(arguments: argparse.Namespace) -> int:
    """Revoke one voucher or a batch."""
    which: Params = {"batch": int(arguments.which)} if arguments.which.isdecimal() else {"id": arguments.which}
    reply = ask(arguments, "vouchers.revoke", {**which, "end_sessions": arguments.end_sessions})
    output = Output()
    if arguments.json:
        output.json(reply)
    else:
        answer = object_of(reply)
        revoked, ended = _whole(answer.get("revoked")), _whole(answer.get("ended"))
        output.line(f"revoked {counted(revoked, 'voucher')}, ended {counted(ended, 'session')}")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove a batch."""
    batch: JsonValue = int(arguments.which) if arguments.which.isdecimal() else arguments.which
    answer = ask(arguments, "vouchers.remove", {"batch": batch})
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        output.line(f"removed batch {text(arguments.which)}")
    return 0


def _whole(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
