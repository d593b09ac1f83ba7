"""What the kernel says of links, addresses, routes and routing rules (rtnetlink(7)), read without the daemon.

The daemon has these by pyroute2 in a thread of its own; this reads them in any thread, and for the command when no
daemon runs. Blocks for as long as a dump takes; raises OSError.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from gateway.datapath.nfnetlink import attributes
from gateway.datapath.rtnetlink import dump
from gateway.doctor.interfaces import Link
from gateway.doctor.routing import Rule

_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_RULE = 18, 22, 26, 34
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_RULE: Final = struct.Struct("=BBBBBBBBI")
_WORD: Final = struct.Struct("=I")
_LINK_NAME, _LINK_MASTER, _LINK_CARRIER = 3, 10, 33
_ADDRESS_OF, _ADDRESS_LOCAL = 1, 2
_ROUTE_OUT: Final = 4
_RULE_IN, _RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK = 3, 6, 10, 15, 16
_RULE_INVERTED: Final = 0x2
_MAIN_TABLE: Final = 254
_IFF_UP: Final = 0x1


def links() -> list[Link]:
    """All interfaces with their IPv4 addresses."""
    addresses: dict[int, list[IPv4Interface]] = {}
    for data, start, end in dump(_GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _family, length, _flags, _scope, index = _ADDRESS.unpack_from(data, start)
        values = _values(data, start + _ADDRESS.size, end)
        packed = values.get(_ADDRESS_LOCAL) or values.get(_ADDRESS_OF, b"")
        if len(packed) == 4 and length <= 32:
            addresses.setdefault(index, []).append(IPv4Interface((IPv4Address(packed), length)))
    found = []
    for data, start, end in dump(_GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _family, _type, index, flags, _change = _LINK.unpack_from(data, start)
        values = _values(data, start + _LINK.size, end)
        found.append(
            Link(
                index=index,
                name=values.get(_LINK_NAME, b"").rstrip(b"\0").decode("ascii", "replace"),
                master=_word(values.get(_LINK_MASTER)),
                is_up=bool(flags & _IFF_UP),
                has_carrier=values.get(_LINK_CARRIER, b"\1") != b"\0",
                addresses=tuple(addresses.get(index, ())),
            )
        )
    return found


def default_routes() -> list[int]:
    """Indexes of the interfaces that IPv4 default routes of the main table lead out of; 0 for one of many hops."""
    found = []
    for data, start, end in dump(_GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _family, length, _source, _tos, table, *_ = _ROUTE.unpack_from(data, start)
        if length == 0 and table == _MAIN_TABLE:
            found.append(_word(_values(data, start + _ROUTE.size, end).get(_ROUTE_OUT)))
    return found


def rules() -> list[Rule]:
    """All routing rules of both families."""
    found = []
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        for data, start, end in dump(_GET_RULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _family, _to, _from, _tos, table, _a, _b, action, flags = _RULE.unpack_from(data, start)
            values = _values(data, start + _RULE.size, end)
            found.append(
                Rule(
                    version=version,
                    priority=_word(values.get(_RULE_PRIORITY)),
                    interface=values.get(_RULE_IN, b"").rstrip(b"\0").decode("ascii", "replace"),
                    mark=_word(values.get(_RULE_MARK)),
                    mask=_word(values.get(_RULE_MASK)) if _RULE_MASK in values else None,
                    action=action,
                    table=_word(values.get(_RULE_TABLE)) or table,
                    is_inverted=bool(flags & _RULE_INVERTED),
                )
            )
    return found


def _values(data: bytes, start: int, end: int) -> dict[int, bytes]:
    return {kind: data[first:last] for kind, first, last in attributes(data, start, end)}


def _word(value: bytes | None) -> int:
    return _WORD.unpack(value)[0] if value is not None and len(value) == 4 else 0
