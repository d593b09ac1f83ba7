"""`postern status`: how the gateway is doing, on one screen."""

from __future__ import annotations

import argparse

from gateway.cli.options import Subparsers, add_common, ask
from gateway.cli.render import Column, Output, duration, generic_pairs, object_of, octets, rows_of, text
from gateway.cli.servers import print_servers
from gateway.control.protocol import JsonValue

_ZONES = (
    Column("ZONE", "name"),
    Column("INTERFACE", "interface"),
    Column("ONLINE", "online", right=True),
    Column("WAITING", "held", right=True),
    Column("LEASES", "leases", right=True),
    Column("POOL", "pool", right=True),
)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern status`."""
    parser = subparsers.add_parser("status", help="how the gateway is doing", description="How the gateway is doing.")
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the status; 0 also when it holds warnings."""
    answer = ask(arguments, "status")
    output = Output()
    if arguments.json:
        output.json(answer)
    else:
        _print(output, answer)
    return 0


def _slots(device: dict[str, JsonValue]) -> list[tuple[str, str]]:
    """Which slot of an image runs, and what became of the last upgrade."""
    if not device.get("slot"):
        return []
    found = [
        ("slot", f"{text(device.get('slot'))}, start {text(device.get('start'))}, board {text(device.get('board'))}")
    ]
    if upgrade := object_of(device, "upgrade"):
        words = f"{text(upgrade.get('version'))} {text(upgrade.get('state'))} {text(upgrade.get('text'))}"
        found.append(("upgrade", words.strip()))
    return found


def _print(output: Output, answer: JsonValue) -> None:
    status = object_of(answer)
    sessions = object_of(answer, "sessions")
    libraries = ", ".join(
        f"{name} {text(status[name])}" for name in ("python", "loop", "msgpack", "parser") if status.get(name)
    )
    pairs = [
        ("postern", f"{text(status.get('version'))}, build {text(status.get('build_id'))} ({libraries})"),
        *_slots(dict(object_of(answer, "device"))),
        ("up for", duration(status.get("uptime_s"))),
        ("sessions", f"{text(sessions.get('online'))} online, {text(sessions.get('total'))} known"),
        ("memory", octets(status.get("memory_rss_bytes"))),
        ("clock", "set" if status.get("clock_set") else "not set yet (no time from the network or an RTC so far)"),
    ]
    for room in ("datapath", "journal"):
        told = {name: value for name, value in object_of(answer, room).items() if value and not isinstance(value, list)}
        if told:
            pairs.append((room, ", ".join(f"{name} {value}" for name, value in generic_pairs(told))))
    output.pairs(pairs)
    zones = rows_of(answer, "zones")
    if zones:
        output.line()
        output.table(zones, _ZONES)
    servers = rows_of(answer, "radius")
    if servers:
        output.line()
        print_servers(output, servers)
    warnings = status.get("warnings")
    if isinstance(warnings, list) and warnings:
        output.line()
        for warning in warnings:
            output.line(f"! {text(warning)}")
