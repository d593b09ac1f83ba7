"""Many cheap clients: each a veth port of the zone's bridge with a MAC of its own, all in one namespace.

A `Phone` gets its address by genuine DHCP from a client of a few lines, and speaks to portal and Internet over
sockets bound to its own address, which routing rules keep to its own port. Everything but building is asynchronous, so
that a hundred of them run in the test's own thread.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from gateway.addresses import MacAddress
from tests.netns.harness import WEB4, GuestZone, Lab

DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
ACK: Final = 5
NAK: Final = 6
_COOKIE: Final = bytes((99, 130, 83, 99))
_HEAD: Final = struct.Struct("!BBBBIHH4s4s4s4s16s192s4s")
_REPEAT_S: Final = 1.5
_TABLES: Final = 1000  # routing table of the first phone


class NotToldError(Exception):
    """The portal gave no answer that says how things stand."""


@dataclass(slots=True, eq=False)
class Phone:
    """One client. `address` is None until it has a lease."""

    lab: Lab
    netns: str
    device: str
    mac: MacAddress
    zone: GuestZone
    address: IPv4Address | None = None
    server: IPv4Address | None = None

    # -- DHCP ---------------------------------------------------------------------------------------------------------

    async def get_lease(self, limit_s: float = 60.0) -> IPv4Address:
        """DISCOVER, OFFER, REQUEST, ACK, repeated until it worked (RFC 2131 §3.1)."""
        async with asyncio.timeout(limit_s):
            while True:
                offered = await self._exchange(DISCOVER, b"", (OFFER,))
                if offered is None:
                    continue
                address, options = offered
                wish = _option(50, address.packed) + _option(54, options[54])
                bound = await self._exchange(REQUEST, wish, (ACK, NAK))
                if bound is not None and bound[1][53] == bytes((ACK,)):
                    self.address, self.server = bound[0], IPv4Address(options[54])
                    return bound[0]

    async def renew(self, limit_s: float = 20.0) -> bool:
        """Ask for more time for the address that is held; True for ACK, False for NAK (RFC 2131 §4.3.2, renewing)."""
        assert self.address is not None
        async with asyncio.timeout(limit_s):
            while True:
                answer = await self._exchange(REQUEST, b"", (ACK, NAK), own=self.address)
                if answer is not None:
                    return answer[1][53] == bytes((ACK,))

    async def _exchange(
        self, kind: int, options: bytes, answers: Sequence[int], own: IPv4Address | None = None
    ) -> tuple[IPv4Address, dict[int, bytes]] | None:
        """Send one message and wait a moment for its answer: yiaddr and options, or None."""
        loop = asyncio.get_running_loop()
        number = random.getrandbits(32)
        with self.lab.inside(self.netns):
            sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sending:
            sending.setblocking(False)
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
            sending.bind((str(own or ""), 68))
            ciaddr = own.packed if own else bytes(4)
            # Without an address of its own a client asks to be answered by broadcast.
            flags, chaddr = 0 if own else 0x8000, bytes(self.mac) + bytes(10)
            head = _HEAD.pack(1, 1, 6, 0, number, 0, flags, ciaddr, *[bytes(4)] * 3, chaddr, bytes(192), _COOKIE)
            message = head + _option(53, bytes((kind,))) + options + b"\xff"
            to = str(self.server) if own else "255.255.255.255"
            try:
                async with asyncio.timeout(_REPEAT_S):
                    await loop.sock_sendto(sending, message, (to, 67))
                    while True:
                        answer = await loop.sock_recv(sending, 2048)
                        if len(answer) > _HEAD.size and answer[0] == 2 and answer[4:8] == message[4:8]:
                            found = _read_options(answer[_HEAD.size :])
                            if found.get(53, b"\0")[0] in answers:
                                return IPv4Address(answer[16:20]), found
            except (TimeoutError, OSError):
                return None

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    async def request(self, host: str, port: int, head: str, body: str = "", limit_s: float = 25.0) -> tuple[int, str]:
        """One HTTP request over a connection of its own: status and body; raises OSError or TimeoutError."""
        assert self.address is not None
        async with asyncio.timeout(limit_s):
            with self.lab.inside(self.netns):
                line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                line.setblocking(False)
                line.bind((str(self.address), 0))
                await asyncio.get_running_loop().sock_connect(line, (host, port))
                reader, writer = await asyncio.open_connection(sock=line)
            except BaseException:
                line.close()
                raise
            try:
                text = f"{head}\r\nHost: {host}:{port}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
                text += f"Content-Type: application/json\r\n\r\n{body}" if body else "\r\n"
                writer.write(text.encode())
                answer = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
        first, _, _ = answer.partition("\r\n")
        words = first.split()
        if len(words) < 2:
            raise ConnectionResetError("the answer is empty")
        return int(words[1]), answer.partition("\r\n\r\n")[2]

    async def ask_portal(self, path: str, wish: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """A method of the portal's JSON interface: status and answer; raises NotToldError when it says nothing.

        A broken connection and 503 (the daemon is away) say nothing. Any: each method has its own answer.
        """
        head = f"GET {path} HTTP/1.1" if wish is None else f"POST {path} HTTP/1.1"
        body = "" if wish is None else json.dumps(wish) or "{}"
        try:
            status, text = await self.request(str(self.zone.address.ip), 3990, head, body)
        except (OSError, TimeoutError) as error:
            raise NotToldError(str(error)) from error
        if status >= 500:
            raise NotToldError(text)
        return status, json.loads(text)

    async def passes(self, limit_s: float = 5.0) -> bool:
        """Whether the Internet answers on a port that is never redirected; a held client is refused at once."""
        try:
            status, body = await self.request(str(WEB4), 8080, "GET / HTTP/1.1", limit_s=limit_s)
        except (OSError, TimeoutError):
            return False
        return status == 200 and body.startswith("the internet")

    async def fetch(self, size_bytes: int) -> int:
        """Download that many octets; returns how many came."""
        _, body = await self.request(str(WEB4), 8080, f"GET /bytes/{size_bytes} HTTP/1.1")
        return len(body)


def make_phones(lab: Lab, count: int, zone: GuestZone | None = None) -> list[Phone]:
    """Put that many clients on ports of a zone's bridge; they are in the namespace of one new guest of the lab."""
    home = zone or lab.zones[0]
    netns = lab.add_guest(home).netns
    phones = [
        Phone(lab, netns, f"ph{number}", MacAddress(bytes((2, 0, 0x5E, 0x20, number >> 8, number & 0xFF))), home)
        for number in range(1, count + 1)
    ]
    _ip(
        lab.gateway,
        [
            f"link add p{phone.device} type veth peer name {phone.device} address {phone.mac} netns {netns}\n"
            f"link set p{phone.device} master {home.bridge} up"
            for phone in phones
        ],
    )
    # Many addresses of one network in one namespace: each port answers ARP for its own alone.
    for name, value in {"arp_ignore": 1, "arp_announce": 2, "arp_filter": 1, "rp_filter": 0}.items():
        for scope in ("all", "default"):
            lab.run(netns, ["sysctl", "-qw", f"net.ipv4.conf.{scope}.{name}={value}"])
    lab.run(netns, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
    _ip(netns, [f"link set {phone.device} up" for phone in phones])
    return phones


async def lease_all(phones: Sequence[Phone]) -> None:
    """Have every phone get an address, and set it on its port."""
    await asyncio.gather(*(phone.get_lease() for phone in phones))
    lines = []
    for number, phone in enumerate(phones):
        table, network = _TABLES + number, phone.zone.address.network
        lines += [
            f"address add {phone.address}/{network.prefixlen} dev {phone.device} noprefixroute",
            f"route add {network} dev {phone.device} src {phone.address} table {table}",
            f"route add default via {phone.zone.address.ip} dev {phone.device} src {phone.address} table {table}",
            f"rule add from {phone.address} lookup {table}",
        ]
    _ip(phones[0].netns, lines)


def _ip(netns: str, lines: Sequence[str]) -> None:
    subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _read_options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        length = data[at + 1]
        found[data[at]] = data[at + 2 : at + 2 + length]
        at += 2 + length
    return found
