"""Who else has our ports: a dnsmasq or systemd-resolved that was there first. Pure: tables in, rows out.

The kernel's tables (proc(5), /proc/net) tell address, port, user and inode of each socket; which process an inode
belongs to is told to root, and to others about their own processes only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from gateway.config import Config
from gateway.doctor.rows import Row, fail, ok, skipped
from gateway.values import value_class

_LISTENING: Final = "0A"
_DHCP: Final = 67
_DNS: Final = 53


@value_class
class Bound:
    """A socket that takes what comes to an address and port."""

    protocol: str  # tcp or udp
    address: IPv4Address  # 0.0.0.0: every address
    port: int
    uid: int
    inode: int


@value_class
class Holder:
    """Such a socket and its process; `process` empty when the system does not tell."""

    bound: Bound
    process: str
    is_ours: bool

    def __str__(self) -> str:
        return f"{self.process or f'a process of user {self.bound.uid}'} at {self.bound.address}:{self.bound.port}"


def wanted_ports(config: Config) -> tuple[tuple[str, int], ...]:
    """Protocol and port of everything that guests ask of us."""
    return (("udp", _DNS), ("tcp", _DNS), ("udp", _DHCP), ("tcp", config.uam.port))


def read_table(protocol: str, version: int, text: str) -> list[Bound]:
    """Sockets of one table of /proc/net; lines that cannot be read are passed over.

    Of IPv6 only those that are bound to no address count: they take IPv4 as well.
    """
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or (protocol == "tcp" and words[3] != _LISTENING):
            continue
        host, _, port = words[1].partition(":")
        try:
            if version == 6:
                if int(host, 16):
                    continue
                address = IPv4Address(0)
            else:
                # The kernel prints the four octets as one number of this machine.
                address = IPv4Address(int(host, 16).to_bytes(4, sys.byteorder))
            found.append(Bound(protocol, address, int(port, 16), int(words[7]), int(words[9])))
        except ValueError:
            continue
    return found


def judge_ports(config: Config, holders: Iterable[Holder], *, running: bool) -> list[Row]:
    """Whether others stand in our way; `running`: posternd runs, so its own sockets must be among these.

    A socket of everybody's address beside our own of one address is no harm: what comes to ours is ours.
    """
    rows = []
    everything = list(holders)
    for zone in config.zones:
        check = f"zone {zone.name}: ports"
        in_the_way = []
        for protocol, port in wanted_ports(config):
            here = [
                holder
                for holder in everything
                if (holder.bound.protocol, holder.bound.port) == (protocol, port)
                and holder.bound.address in (zone.address.ip, IPv4Address(0))
            ]
            served = running and any(holder.is_ours for holder in here)
            in_the_way += [
                str(holder)
                for holder in here
                if not holder.is_ours and (holder.bound.address == zone.address.ip or not served)
            ]
        if in_the_way:
            rows.append(
                fail(
                    check,
                    f"Others have ports that Postern needs in this zone: {', '.join(dict.fromkeys(in_the_way))}.",
                    f"Stop that program, or keep it off {zone.interface}: dnsmasq with bind-dynamic and "
                    f"except-interface={zone.interface} (OpenWrt: list notinterface in config dnsmasq), "
                    "systemd-resolved with DNSStubListener=no.",
                )
            )
        else:
            rows.append(ok(check, f"Nobody keeps us from ports 53, 67 and {config.uam.port}."))
    return rows or [skipped("ports", "Without a zone none is needed.")]


def inodes_of(bounds: Sequence[Bound], config: Config) -> dict[int, Bound]:
    """The sockets at ports that we need, by inode."""
    ports = wanted_ports(config)
    return {bound.inode: bound for bound in bounds if (bound.protocol, bound.port) in ports}
