"""`postern sessions`: who is online, and letting clients in or out."""

from __future__ import annotations

import argparse
from typing import Final

from gateway.cli.events import print_events
from gateway.cli.options import Subparsers, add_common, add_limits, ask, client_of, limits_of
from gateway.cli.render import (
    Column,
    Output,
    Row,
    counted,
    duration,
    generic_pairs,
    object_of,
    octets,
    rows_of,
    text,
)
from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import JsonValue, Params

PAGE_ROWS: Final = 1000  # sessions asked for at once
STATES: Final = ("held", "authenticating", "opening", "online", "closing")
CAUSES: Final = ("admin-reset", "user-request", "nas-request")

_COLUMNS: Final = (
    Column("MAC", "mac"),
    Column("ADDRESS", "ip"),
    Column("STATE", "state"),
    Column("USER", "username", least=8),
    Column("FOR", "since_s", duration, right=True),
    Column("LEFT", "seconds_left", duration, right=True, rank=1),
    Column("IDLE", "idle_s", duration, right=True, rank=5),
    Column("UP", "upload_bytes", octets, right=True, rank=3),
    Column("DOWN", "download_bytes", octets, right=True, rank=2),
    Column("QUOTA LEFT", "bytes_left", octets, right=True, rank=6),
    Column("HOST NAME", "hostname", least=8, rank=4),
    Column("ZONE", "zone", rank=7),
)
_RESULTS: Final = {
    "reject": "it was refused",
    "timeout": "no authentication server answered",
    "limit": "too many sessions of this user, or the gateway is full",
    "busy": "another login of this client is under way",
    "no_lease": "it has no address from this gateway",
    "forbidden": "it is blocked in its zone",
    "error": "the kernel did not open the gate; see `postern events` and the log",
}


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern sessions list|show|kick|authorize`."""
    parser = subparsers.add_parser(
        "sessions",
        help="who is online, and letting clients in or out",
        description="Who is online. CLIENT is a MAC or IP address, a session id, or a user name.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("list", help="all clients with an address")
    verb.add_argument("--zone", help="only this zone")
    verb.add_argument("--state", choices=STATES, help="only in this state")
    verb.add_argument("--search", metavar="TEXT", help="only those whose addresses, user or host name hold TEXT")
    verb.add_argument("--limit", type=int, metavar="N", help="at most N of them")
    add_common(verb)
    verb.set_defaults(run=run_list)

    verb = verbs.add_parser("show", help="everything about one client")
    verb.add_argument("client", metavar="CLIENT")
    add_common(verb)
    verb.set_defaults(run=run_show)

    verb = verbs.add_parser("kick", help="end the sessions of a client or user")
    verb.add_argument("client", metavar="CLIENT")
    verb.add_argument("--cause", choices=CAUSES, help="the cause told to accounting (admin-reset)")
    add_common(verb)
    verb.set_defaults(run=run_kick)

    verb = verbs.add_parser("authorize", help="let a client in without a login")
    verb.add_argument("client", metavar="CLIENT")
    verb.add_argument("--minutes", type=int, metavar="N", help="for N minutes (the same as --session-time Nm)")
    verb.add_argument("--username", help="the name told to accounting")
    add_limits(verb)
    add_common(verb)
    verb.set_defaults(run=run_authorize)


def run_list(arguments: argparse.Namespace) -> int:
    """All sessions that match, read in pages."""
    params: Params = {}
    for name in ("zone", "state", "search"):
        if getattr(arguments, name) is not None:
            params[name] = getattr(arguments, name)
    with client_of(arguments) as client:
        total, rows = _read_pages(client, params, arguments.limit)
    output = Output()
    if arguments.json:
        output.json({"total": total, "rows": [dict(row) for row in rows]})
        return 0
    if rows:
        output.table(rows, _COLUMNS)
    output.line(counted(total, "session") if len(rows) == total else f"{len(rows)} of {counted(total, 'session')}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """One session; not found is the daemon's error."""
    answer = ask(arguments, "sessions.show", {"client": arguments.client})
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    session = object_of(answer)
    plain = {name: value for name, value in session.items() if name not in ("limits", "events") and _told(value)}
    output.pairs(generic_pairs(plain))
    limits = {name: value for name, value in object_of(answer, "limits").items() if value is not None}
    output.line()
    output.heading("LIMITS")
    output.pairs(generic_pairs(limits) or [("none", "")])
    events = rows_of(answer, "events")
    if events:
        output.line()
        print_events(output, events, one_client=True)
    return 0


def run_kick(arguments: argparse.Namespace) -> int:
    """End sessions; 1 when there was none to end."""
    params: Params = {"client": arguments.client}
    if arguments.cause:
        params["cause"] = arguments.cause
    answer = ask(arguments, "sessions.kick", params)
    ended = object_of(answer).get("ended")
    output = Output()
    if arguments.json:
        output.json(answer)
    elif isinstance(ended, int) and ended:
        output.line(f"ended {counted(ended, 'session')}")
    else:
        output.line(f"no session of {text(arguments.client)} is online")
    return 0 if ended else 1


def run_authorize(arguments: argparse.Namespace) -> int:
    """Let a client in; 1 when the gateway refused."""
    params: Params = {"client": arguments.client, **limits_of(arguments)}
    if arguments.minutes is not None:
        params["minutes"] = arguments.minutes
    if arguments.username is not None:
        params["username"] = arguments.username
    answer = ask(arguments, "sessions.authorize", params)
    result = object_of(answer).get("result")
    output = Output()
    if arguments.json:
        output.json(answer)
    elif result == "success":
        output.line(f"{text(arguments.client)} is online")
    elif result == "already":
        output.line(f"{text(arguments.client)} was online already; nothing was changed")
    else:
        reason = text(object_of(answer).get("message")) or _RESULTS.get(str(result), text(result))
        output.line(f"{text(arguments.client)} was not let in: {reason}")
    return 0 if result in ("success", "already") else 1


def _read_pages(client: SyncControlClient, params: Params, limit: int | None) -> tuple[int, list[Row]]:
    """Sessions that come and go between two pages may be missed or seen twice; the latter are dropped."""
    rows: dict[tuple[str, str], Row] = {}
    total = offset = 0
    while limit is None or len(rows) < limit:
        page_rows = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(rows))
        answer = client.call("sessions.list", {**params, "offset": offset, "limit": page_rows})
        found = object_of(answer).get("total")
        total = found if isinstance(found, int) else 0
        page = rows_of(answer)
        for row in page:
            rows[str(row.get("zone")), str(row.get("mac"))] = row
        offset += len(page)
        if not page or offset >= total:
            break
    return total, list(rows.values())


def _told(value: JsonValue) -> bool:
    return value is not None and value != "" and value != []
