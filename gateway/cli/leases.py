"""`postern leases`: addresses given out by DHCP."""

from __future__ import annotations

import argparse
from typing import Final

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Column, Output, counted, duration, object_of, rows_of, text
from gateway.control.protocol import Params

_COLUMNS: Final = (
    Column("ADDRESS", "ip"),
    Column("MAC", "mac"),
    Column("STATE", "state"),
    Column("EXPIRES IN", "expires_in_s", duration, right=True, rank=1),
    Column("HOST NAME", "hostname", least=8, rank=2),
    Column("ZONE", "zone", rank=3),
    Column("CLIENT ID", "client_id", least=8, rank=4),
)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern leases list|release`."""
    parser = subparsers.add_parser(
        "leases", help="addresses given out by DHCP", description="Addresses given out by DHCP."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("list", help="all leases, offers, reservations and addresses in quarantine")
    verb.add_argument("--zone", help="only this zone")
    add_common(verb)
    verb.set_defaults(run=run_list)
    verb = verbs.add_parser("release", help="take an address back; its client's session ends")
    verb.add_argument("client", metavar="CLIENT", help="a MAC or IP address")
    add_common(verb)
    verb.set_defaults(run=run_release)


def run_list(arguments: argparse.Namespace) -> int:
    """All addresses that are spoken for."""
    params: Params = {} if arguments.zone is None else {"zone": arguments.zone}
    answer = ask(arguments, "leases.list", params)
    output = Output()
    if arguments.json:
        output.json(answer)
        return 0
    rows = rows_of(answer)
    if rows:
        output.table(rows, _COLUMNS)
    leases = sum(row.get("state") == "bound" for row in rows)
    others = len(rows) - leases
    output.line(counted(leases, "lease") + (f", {others} offered, reserved or in quarantine" if others else ""))
    return 0


def run_release(arguments: argparse.Namespace) -> int:
    """Release a lease; 1 when there was none."""
    answer = ask(arguments, "leases.release", {"client": arguments.client})
    released = object_of(answer).get("released")
    output = Output()
    if arguments.json:
        output.json(answer)
    elif isinstance(released, int) and released:
        output.line(f"released {counted(released, 'lease')}")
    else:
        output.line(f"{text(arguments.client)} has no lease")
    return 0 if released else 1
