"""ARP and neighbour discovery: who claims which address, who asks in vain, who asks for everybody (RFC 826, RFC 5227,
RFC 4861).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.analysis.state import State

SECOND: Final = 1_000_000_000
_MAX_ADDRESSES: Final = 8_192
_MAX_MACS: Final = 8
# VRRP and HSRP routers share an address on purpose (RFC 9568 section 7.3).
_VIRTUAL: Final = (b"\x00\x00\x5e\x00\x01", b"\x00\x00\x5e\x00\x02", b"\x00\x00\x0c\x07\xac", b"\x00\x00\x0c\x9f")
_ZERO: Final = b"\0\0\0\0"

A_MACS, A_REQUESTS, A_REPLIES, A_UNASKED, A_PENDING, A_UNANSWERED, A_PROBES, A_FRAMES, A_CONFLICTS = range(9)


class ArpTable:
    """What was asked and answered, by IPv4 address."""

    def __init__(self) -> None:
        self.addresses: dict[bytes, list[Any]] = {}
        self.requests = self.replies = 0
        # MAC -> [running second, requests in it, most in a second, first time, frames, targets, last time, requests]
        self.askers: dict[bytes, list[Any]] = {}


def packet(st: State, buf: bytes, at: int, end: int, t: int, frame: int) -> None:
    """Take one ARP packet for IPv4 over Ethernet; others are only counted."""
    if at + 28 > end or buf[at + 2 : at + 6] != b"\x08\x00\x06\x04":
        return
    table = st.arp
    operation = buf[at + 6] << 8 | buf[at + 7]
    mac, source, target = buf[at + 8 : at + 14], buf[at + 14 : at + 18], buf[at + 24 : at + 28]
    if operation == 1:
        table.requests += 1
        asked = _row(table, target)
        if asked is not None:
            asked[A_REQUESTS] += 1
            if source == _ZERO:
                asked[A_PROBES] += 1
            elif source != target:
                asked[A_PENDING] = (t, mac)
                asked[A_UNANSWERED] += 1
            if len(asked[A_FRAMES]) < 20:
                asked[A_FRAMES].append(frame)
        if source not in (_ZERO, target):
            _asker(table, mac, target, t, frame)
    elif operation == 2:
        table.replies += 1
        answered = _row(table, source)
        if answered is not None:
            answered[A_REPLIES] += 1
            if answered[A_PENDING] is None:
                answered[A_UNASKED] += 1
            else:
                answered[A_UNANSWERED] = 0
                answered[A_PENDING] = None
            if len(answered[A_FRAMES]) < 20:
                answered[A_FRAMES].append(frame)
    else:
        return
    if source != _ZERO:
        _claim(st, source, mac, t, frame)


def mac_words(mac: bytes) -> str:
    """A hardware address for a sentence, with what can be told from it: phones make theirs up (IEEE 802c)."""
    return mac.hex(":") + (" (made up)" if is_local(mac) else "")


def is_local(mac: bytes) -> bool:
    """Whether a hardware address was not given by a maker but chosen by the device, often anew for each network."""
    return bool(mac[0] & 2)


def neighbour(st: State, address: bytes, mac: bytes, t: int, frame: int) -> None:
    """Take the claim of a neighbour advertisement: `mac` says it has the IPv6 address."""
    row = _row(st.arp, address)
    if row is not None:
        row[A_REPLIES] += 1
        if len(row[A_FRAMES]) < 20:
            row[A_FRAMES].append(frame)
        _claim(st, address, mac, t, frame)


def _row(table: ArpTable, address: bytes) -> list[Any] | None:
    row = table.addresses.get(address)
    if row is None and len(table.addresses) < _MAX_ADDRESSES:
        row = table.addresses[address] = [{}, 0, 0, 0, None, 0, 0, [], []]
    return row


def _claim(st: State, address: bytes, mac: bytes, t: int, frame: int) -> None:
    row = _row(st.arp, address)
    if row is None:
        return
    macs: dict[bytes, tuple[int, int]] = row[A_MACS]
    if mac not in macs and len(macs) >= _MAX_MACS:
        return
    if not mac.startswith(_VIRTUAL):
        for other, (seen, other_frame) in macs.items():
            near = abs(t - seen) <= st.settings.arp.conflict_s * SECOND
            if other != mac and near and not other.startswith(_VIRTUAL) and len(row[A_CONFLICTS]) < 50:
                row[A_CONFLICTS].append((other_frame, frame, t))
    macs[mac] = (t, frame)


def _asker(table: ArpTable, mac: bytes, target: bytes, t: int, frame: int) -> None:
    row = table.askers.get(mac)
    second = t // SECOND
    if row is None:
        if len(table.askers) < _MAX_ADDRESSES:
            table.askers[mac] = [second, 1, 1, t, [frame], {target}, t, 1]
        return
    if row[0] != second:
        row[0], row[1] = second, 0
    row[1] += 1
    row[2] = max(row[2], row[1])
    row[6] = t
    row[7] += 1
    if len(row[4]) < 100:
        row[4].append(frame)
    if len(row[5]) < 1024:
        row[5].add(target)
