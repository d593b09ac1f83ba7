"""DHCP seen from outside (RFC 2131, RFC 8415): the steps of each exchange, who serves, who starves the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000
MESSAGES4: Final = {
    1: "discover",
    2: "offer",
    3: "request",
    4: "decline",
    5: "ack",
    6: "nak",
    7: "release",
    8: "inform",
}
MESSAGES6: Final = {
    1: "solicit",
    2: "advertise",
    3: "request",
    4: "confirm",
    5: "renew",
    6: "rebind",
    7: "reply",
    8: "release",
    9: "decline",
    10: "reconfigure",
    11: "information-request",
    12: "relay-forward",
    13: "relay-reply",
}
_COOKIE: Final = b"\x63\x82\x53\x63"
_MAX_EXCHANGES: Final = 4_096
_MAX_STEPS: Final = 16


class Exchange:
    """One client's exchange under one transaction id."""

    __slots__ = (
        "address",
        "client",
        "family",
        "hostname",
        "lease_s",
        "parameters",
        "servers",
        "steps",
        "vendor",
        "xid",
    )

    def __init__(self, family: int, client: str, xid: str) -> None:
        self.family = family
        self.client = client
        self.xid = xid
        self.hostname: str | None = None
        self.vendor: str | None = None
        self.parameters: list[int] = []
        self.servers: list[str] = []
        self.address: str | None = None
        self.lease_s: int | None = None
        self.steps: list[tuple[str, int, int]] = []  # message, frame, time


class DhcpTable:
    """Exchanges, servers, and the rate of requests from ever new clients."""

    def __init__(self) -> None:
        self.exchanges: dict[tuple[int, str, str], Exchange] = {}
        self.messages: dict[str, int] = {}
        self.servers: dict[str, tuple[int, bytes]] = {}  # address -> first frame, hardware or IP address
        self.second = 0
        self.clients: set[bytes] = set()
        self.count = 0
        self.best: tuple[int, int, int] = (0, 0, 0)  # distinct clients, messages, second
        self.flood: list[Any] = [0, 0, 0, [], 0]  # first frame, last frame, messages, frames, seconds
        self.all_clients: set[bytes] = set()


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def message4(st: State, buf: bytes, at: int, end: int, key: bytes, t: int, frame: int) -> bool:
    """Take a BOOTP message of DHCPv4; returns whether it was one."""
    if at + 240 > end or buf[at] not in (1, 2) or buf[at + 236 : at + 240] != _COOKIE:
        return False
    table = st.dhcp
    options = _options4(buf, at + 240, end)
    kind = options.get(53, b"\0")
    name = MESSAGES4.get(kind[0] if kind else 0, "bootp")
    table.messages[name] = table.messages.get(name, 0) + 1
    hardware = buf[at + 28 : at + 28 + min(16, buf[at + 2])]
    client = _mac(hardware)
    if buf[at] == 1:
        _rate(st, hardware, t, frame, name in ("discover", "request"))
    exchange = _exchange(table, 4, client, buf[at + 4 : at + 8].hex())
    if exchange is None:
        return True
    if len(exchange.steps) < _MAX_STEPS:
        exchange.steps.append((name, frame, t))
    if 12 in options and exchange.hostname is None:
        exchange.hostname = options[12].decode("utf-8", "replace")[:253]
    if 60 in options and exchange.vendor is None:
        exchange.vendor = options[60].decode("utf-8", "replace")[:120]
    if 55 in options and not exchange.parameters:
        exchange.parameters = list(options[55][:64])
    if buf[at] == 2:
        raw = options.get(54, b"")
        server = ".".join(map(str, raw)) if len(raw) == 4 else ".".join(map(str, key[:4]))
        if server not in exchange.servers and len(exchange.servers) < 8:
            exchange.servers.append(server)
        if name in ("offer", "ack") and len(table.servers) < 256:
            table.servers.setdefault(server, (frame, key[:4]))
        if name in ("offer", "ack"):
            exchange.address = ".".join(map(str, buf[at + 16 : at + 20]))
        if len(options.get(51, b"")) == 4:
            exchange.lease_s = int.from_bytes(options[51], "big")
    return True


def _options4(buf: bytes, position: int, end: int) -> dict[int, bytes]:
    """Options by code; repeated ones are joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    for _ in range(256):
        if position >= end or buf[position] == 255:
            break
        code = buf[position]
        if code == 0:
            position += 1
            continue
        if position + 2 > end or position + 2 + buf[position + 1] > end:
            break
        options[code] = options.get(code, b"") + buf[position + 2 : position + 2 + buf[position + 1]]
        position += 2 + buf[position + 1]
    return options


def _exchange(table: DhcpTable, family: int, client: str, xid: str) -> Exchange | None:
    exchange = table.exchanges.get((family, client, xid))
    if exchange is None and len(table.exchanges) < _MAX_EXCHANGES:
        exchange = table.exchanges[family, client, xid] = Exchange(family, client, xid)
    return exchange


def _rate(st: State, hardware: bytes, t: int, frame: int, asking: bool) -> None:
    """Count clients and messages by second, for starvation and floods."""
    table = st.dhcp
    if not asking:
        return
    second = t // SECOND
    if second != table.second:
        close_second(st)
        table.second = second
    table.count += 1
    if len(table.clients) < 4096:
        table.clients.add(hardware)
    if len(table.all_clients) < 65_536:
        table.all_clients.add(hardware)
    if table.count >= st.settings.dhcp.flood_per_s:
        flood = table.flood
        flood[0] = flood[0] or frame
        flood[1] = frame
        flood[2] += 1
        if len(flood[3]) < st.frames_cap:
            flood[3].append(frame)


def close_second(st: State) -> None:
    """Put the running second into the record of the busiest one; called again at the end."""
    table = st.dhcp
    table.best = max(table.best, (len(table.clients), table.count, table.second))
    if table.count >= st.settings.dhcp.flood_per_s:
        table.flood[4] += 1
    table.clients = set()
    table.count = 0


def message6(st: State, buf: bytes, at: int, end: int, key: bytes, t: int, frame: int) -> bool:
    """Take a DHCPv6 message; relayed ones are only counted."""
    if at + 4 > end or buf[at] not in MESSAGES6:
        return False
    table = st.dhcp
    name = MESSAGES6[buf[at]]
    table.messages["v6 " + name] = table.messages.get("v6 " + name, 0) + 1
    if buf[at] in (12, 13):
        return True
    client, server, address, hostname = "", None, None, None
    lease: int | None = None
    position = at + 4
    for _ in range(64):
        if position + 4 > end:
            break
        code, size = buf[position] << 8 | buf[position + 1], buf[position + 2] << 8 | buf[position + 3]
        position += 4
        if position + size > end:
            break
        if code == 1:
            client = buf[position : position + min(size, 64)].hex(":")
        elif code == 2:
            server = buf[position : position + min(size, 64)].hex(":")
        elif code == 39 and size > 1:
            hostname = buf[position + 1 : position + size].decode("utf-8", "replace").strip()[:253]
        elif code == 3 and size >= 12 + 28 and buf[position + 12] << 8 | buf[position + 13] == 5:
            address = buf[position + 16 : position + 32]
            lease = int.from_bytes(buf[position + 36 : position + 40], "big")
        position += size
    exchange = _exchange(table, 6, client, buf[at + 1 : at + 4].hex())
    if exchange is None:
        return True
    if len(exchange.steps) < _MAX_STEPS:
        exchange.steps.append((name, frame, t))
    exchange.hostname = exchange.hostname or hostname
    offered = server is not None and name in ("advertise", "reply")
    if offered and server is not None and server not in exchange.servers and len(exchange.servers) < 8:
        exchange.servers.append(server)
    if address is not None and name in ("advertise", "reply"):
        exchange.address = st.address_text(address)
        exchange.lease_s = lease
    return True


def outcome(exchange: Exchange) -> str:
    """How an exchange ended, in the words of the report."""
    seen = {message for message, _, _ in exchange.steps}
    if "nak" in seen:
        return "nak"
    if seen & {"ack", "reply"}:
        return "bound"
    if seen & {"release"}:
        return "released"
    if seen & {"discover", "solicit"} and not seen & {"offer", "advertise"}:
        return "no-offer"
    if "request" in seen:
        return "no-ack"
    return "partial"
