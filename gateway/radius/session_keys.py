"""By what a dynamic-authorization request names sessions, and whether a session is meant (RFC 5176 §3)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from gateway.addresses import MacAddress
from gateway.values import value_class


@value_class
class SessionKeys:
    """By what a request names its session; None was not given, and everything given must match."""

    acct_session_id: str | None = None
    acct_multi_session_id: str | None = None
    username: str | None = None
    calling_station_id: MacAddress | None = None
    framed_ip: IPv4Address | None = None
    framed_ipv6: IPv6Address | None = None
    framed_ipv6_prefix: IPv6Network | None = None
    nas_port: int | None = None
    nas_port_id: str | None = None
    chargeable_user_identity: bytes | None = None


@value_class
class SessionFacts:
    """What a live session is known by, to compare with SessionKeys."""

    acct_session_id: str
    username: str
    mac: MacAddress
    address: IPv4Address | None
    ipv6_addresses: tuple[IPv6Address, ...]
    client_number: int
    interface: str
    chargeable_user_identity: bytes | None


def matches(keys: SessionKeys, session: SessionFacts) -> bool:
    """Whether everything that a request gives is true of a session (RFC 5176 §3)."""
    prefix = keys.framed_ipv6_prefix
    return (
        keys.acct_multi_session_id is None  # we make no such chains, so none can match
        and keys.acct_session_id in (None, session.acct_session_id)
        and keys.username in (None, session.username)
        and keys.calling_station_id in (None, session.mac)
        and keys.framed_ip in (None, session.address)
        and (keys.framed_ipv6 is None or keys.framed_ipv6 in session.ipv6_addresses)
        and (prefix is None or any(address in prefix for address in session.ipv6_addresses))
        and keys.nas_port in (None, session.client_number)
        and keys.nas_port_id in (None, session.interface)
        and keys.chargeable_user_identity in (None, session.chargeable_user_identity)
    )
