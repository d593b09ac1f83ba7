"""Hardware addresses and address ranges: the few value types that every room speaks.

IP addresses are the standard library's `IPv4Address` and `IPv6Address`; this module adds what that library lacks.
Strings stop at the edges: configuration, the control socket and packets are parsed into these types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from gateway.values import value_class

_COLONS: Final = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")  # how nearly everybody writes it
_SEPARATED: Final = re.compile(r"[0-9A-Fa-f]{1,2}(?:([:-])[0-9A-Fa-f]{1,2})(?:\1[0-9A-Fa-f]{1,2}){4}")
_CISCO: Final = re.compile(r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}")
_BARE: Final = re.compile(r"[0-9A-Fa-f]{12}")


class MacAddress(bytes):
    """A 48-bit hardware address; six octets that compare, hash and slice as bytes do.

    A subclass of bytes because ten thousand sessions and leases are keyed by it: no wrapper object beside the octets.
    """

    __slots__ = ()

    def __new__(cls, octets: bytes) -> MacAddress:
        """Make an address of exactly six octets; raises ValueError for any other length."""
        if len(octets) != 6:
            raise ValueError(f"a MAC address has 6 octets, not {len(octets)}")
        return super().__new__(cls, octets)

    @classmethod
    def parse(cls, text: str) -> MacAddress:
        """Read `aa:bb:cc:dd:ee:ff`, dashes, `aabb.ccdd.eeff` or twelve digits; raises ValueError naming the text."""
        if _COLONS.fullmatch(text):
            return cls(bytes.fromhex(text.replace(":", "")))
        cleaned = text.strip()
        if _SEPARATED.fullmatch(cleaned):
            return cls(bytes(int(part, 16) for part in re.split("[:-]", cleaned)))
        if _CISCO.fullmatch(cleaned) or _BARE.fullmatch(cleaned):
            return cls(bytes.fromhex(cleaned.replace(".", "")))
        raise ValueError(f"{text!r} is not a MAC address such as 02:00:5e:10:00:2a")

    def __str__(self) -> str:
        """Print as `02:00:5e:10:00:2a`, the form of the kernel and of our logs."""
        return self.hex(":")

    def __repr__(self) -> str:
        return f"MacAddress({str(self)!r})"

    def dashed(self) -> str:
        """Print as `02-00-5E-10-00-2A`, the form of RADIUS (RFC 3580 §3.20) and UAM."""
        return self.hex("-").upper()

    @property
    def is_multicast(self) -> bool:
        """Whether the group bit is set; such an address never belongs to a client."""
        return bool(self[0] & 1)

    @property
    def is_random(self) -> bool:
        """Whether the locally-administered bit is set, as in the randomised addresses of phones."""
        return bool(self[0] & 2)


@value_class
class Ipv4Range:
    """An inclusive range of IPv4 addresses, such as a DHCP pool."""

    first: IPv4Address
    last: IPv4Address

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"the range {self.first}-{self.last} ends before it begins")

    @classmethod
    def parse(cls, text: str) -> Ipv4Range:
        """Read `10.0.0.10-10.0.0.99`, or a single address; raises ValueError."""
        first, dash, last = text.partition("-")
        start = IPv4Address(first.strip())
        return cls(start, IPv4Address(last.strip()) if dash else start)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv4Address) and self.first <= address <= self.last

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __iter__(self) -> Iterator[IPv4Address]:
        return (IPv4Address(value) for value in range(int(self.first), int(self.last) + 1))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def overlaps(self, other: Ipv4Range) -> bool:
        """Whether the two ranges share an address."""
        return self.first <= other.last and other.first <= self.last
