"""A crowd of guests behind one interface: thousands of addresses, each with a MAC of its own, on real kernel sockets.

The guest's namespace takes half of the zone's prefix as local (`ip route add local`), so that a socket may be bound to
any address of it. Frames leave with the MAC that belongs to their source address: an nftables egress chain sets it from
a map. What comes for one of these MACs is let in by an ingress chain, for the interface itself has another. The gateway
sees as many clients as the crowd has members; their leases are real, got by a small DHCP client on a packet socket:

    python -m tests.bench.crowd lease COUNT     get a lease for each of the first COUNT members (in the namespace)
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from gateway.addresses import MacAddress
from tests.netns.harness import Guest, GuestZone, Lab

FIRST: Final = int(IPv4Address("10.41.128.0"))
POOL: Final = "10.41.128.0-10.41.255.250"
LOCAL: Final = "10.41.128.0/17"
LARGEST: Final = 32_000
_INTERFACE: Final = "eth0"
_WINDOW: Final = 64  # exchanges under way at once
_RETRY_S: Final = 1.0
_LIMIT_S: Final = 120.0


@dataclass(slots=True)
class WideZone(GuestZone):
    """A guest zone with room for a crowd."""

    @property
    def address(self) -> IPv4Interface:
        """The gateway's address, in a /16."""
        return IPv4Interface(f"10.{41 + self.index}.0.1/16")


def address_of(member: int) -> str:
    """The address of a member, in the pool and known before it is leased: members ask for it."""
    return str(IPv4Address(FIRST + member))


def mac_of(member: int) -> MacAddress:
    """The MAC of a member: locally administered, its address within."""
    return MacAddress(b"\x02\x5e" + (FIRST + member).to_bytes(4, "big"))


def widen(lab: Lab) -> Guest:
    """Turn the first zone of a lab without guests into a wide one, and add the guest that the crowd lives in."""
    lab.zones[0] = WideZone(0, lab.zones[0].bridge)
    return lab.add_guest()


def settle(lab: Lab, guest: Guest, count: int) -> None:
    """Make the first `count` members: their addresses, MACs, and what the gateway's kernel knows of them.

    To be called when the gateway runs. Neighbour entries are permanent: the kernel's table of learned ones is bounded
    for the whole machine (gc_thresh3), and is none of a namespace's business.
    """
    elements = ", ".join(f"{address_of(member)} : {mac_of(member)}" for member in range(count))
    rules = f"""
table netdev crowd {{
    map macs {{ type ipv4_addr : ether_addr; elements = {{ {elements} }}
    }}
    chain out {{ type filter hook egress device {_INTERFACE} priority 0;
        ether saddr set ip saddr map @macs
    }}
    chain in {{ type filter hook ingress device {_INTERFACE} priority 0;
        meta pkttype other meta pkttype set unicast
    }}
}}
"""
    lab.run(guest.netns, ["nft", "-f", "-"], stdin=rules, timeout_s=60)
    gateway = lab.zones[0].address
    # Nobody answers ARP for the members: their neighbour entries are there already.
    lab.run(guest.netns, ["sh", "-c", "echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore"])
    lines = [
        f"address add {IPv4Address(int(gateway.ip) + 1)}/16 dev {_INTERFACE}",
        f"route add local {LOCAL} dev lo",
        f"route add default via {gateway.ip}",
    ]
    _batch(guest.netns, lines)
    bridge = lab.zones[0].bridge
    neighbours = [
        f"neighbour replace {address_of(member)} lladdr {mac_of(member)} dev {bridge} nud permanent"
        for member in range(count)
    ]
    _batch(lab.gateway, neighbours)


def lease_all(lab: Lab, guest: Guest, count: int) -> dict[str, float]:
    """Get leases for the first `count` members; returns seconds and repetitions that were needed."""
    done = lab.run(
        guest.netns, [sys.executable, "-m", "tests.bench.crowd", "lease", str(count)], timeout_s=_LIMIT_S + 20
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _batch(netns: str, lines: list[str]) -> None:
    subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True)


_BOOTP: Final = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
_MAGIC: Final = b"\x63\x82\x53\x63"
_TYPE, _REQUESTED, _SERVER, _END = 53, 50, 54, b"\xff"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5


def _frame(mac: bytes, xid: int, kind: int, address: bytes, server: bytes) -> bytes:
    options = bytes((_TYPE, 1, kind, _REQUESTED, 4)) + address
    if server:
        options += bytes((_SERVER, 4)) + server
    none = bytes(4)
    body = _BOOTP.pack(1, 1, 6, 0, xid, 0, 0, none, none, none, none, mac, _MAGIC) + options + _END
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, none, b"\xff\xff\xff\xff")
    total: int = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return b"\xff" * 6 + mac + b"\x08\x00" + head[:10] + checksum.to_bytes(2, "big") + head[12:] + udp


def _read(frame: bytes) -> tuple[int, int, bytes, bytes] | None:
    """Transaction, message type, address and server of a DHCP reply; None for anything else."""
    if len(frame) < 282 or frame[23] != 17 or frame[36:38] != b"\x00\x44":
        return None
    body = frame[42:]
    xid = int.from_bytes(body[4:8], "big")
    kind, server = 0, b""
    at = 240
    while at + 2 <= len(body) and body[at] != 255:
        code, size = body[at], body[at + 1]
        if code == _TYPE:
            kind = body[at + 2]
        elif code == _SERVER:
            server = body[at + 2 : at + 2 + size]
        at += 2 + size
    return xid, kind, body[16:20], server


def _lease(count: int) -> dict[str, float]:
    """DORA for each member; raises SystemExit when some got none, or another address than they asked for."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((_INTERFACE, 0x0800))
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    waiting: dict[int, tuple[float, bytes]] = {}  # member -> when and what was sent last
    fresh = iter(range(count))
    bound = repeated = 0
    started = time.monotonic()

    def send(member: int, kind: int, server: bytes) -> None:
        frame = _frame(mac_of(member), member + 1, kind, (FIRST + member).to_bytes(4, "big"), server)
        waiting[member] = (time.monotonic(), frame)
        sock.send(frame)

    while bound < count:
        while len(waiting) < _WINDOW and (member := next(fresh, None)) is not None:
            send(member, _DISCOVER, b"")
        poll.poll(200)
        while True:
            try:
                found = _read(sock.recv(2048))
            except BlockingIOError:
                break
            if found is None or found[0] - 1 not in waiting:
                continue
            member = found[0] - 1
            if found[2] != (FIRST + member).to_bytes(4, "big"):
                raise SystemExit(f"{mac_of(member)} was offered {IPv4Address(found[2])}, not {address_of(member)}")
            if found[1] == _OFFER:
                send(member, _REQUEST, found[3])
            elif found[1] == _ACK:
                del waiting[member]
                bound += 1
        now = time.monotonic()
        if now - started > _LIMIT_S:
            raise SystemExit(f"only {bound} of {count} leases within {_LIMIT_S:.0f} s")
        for member, (sent_at, frame) in list(waiting.items()):
            if now - sent_at > _RETRY_S:
                repeated += 1
                waiting[member] = (now, frame)
                sock.send(frame)
    return {"seconds": time.monotonic() - started, "repeated": repeated}


def main() -> int:
    """Lease, in the namespace that we were started in."""
    if len(sys.argv) != 3 or sys.argv[1] != "lease" or not sys.argv[2].isdigit():
        print(__doc__, file=sys.stderr)
        return os.EX_USAGE
    print(json.dumps(_lease(int(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
