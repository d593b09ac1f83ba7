"""The system's list of resolvers: `nameserver` lines of resolv.conf(5)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from gateway.config import Endpoint

DNS_PORT: Final = 53


def parse_resolv_conf(text: str) -> tuple[Endpoint, ...]:
    """The resolvers of the file in order; lines that cannot be read are passed over, as libc does."""
    found: list[Endpoint] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found.append(Endpoint(ip_address(words[1]), DNS_PORT))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))
