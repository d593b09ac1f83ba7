"""Numbers of link types (LINKTYPE_ registry of tcpdump.org) by the name people know them by."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    0: "BSD loopback",
    1: "Ethernet",
    6: "Token Ring",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC framing",
    51: "PPPoE",
    100: "ATM",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "802.11",
    107: "Frame Relay",
    108: "OpenBSD loopback",
    109: "OpenBSD IPsec",
    113: "Linux cooked v1",
    117: "pflog",
    119: "802.11 with Prism header",
    127: "802.11 with radiotap header",
    143: "DOCSIS",
    147: "user 0",
    163: "802.11 with AVS header",
    187: "Bluetooth HCI",
    189: "USB (Linux)",
    192: "PPI",
    195: "802.15.4",
    201: "Bluetooth HCI with direction",
    204: "PPP with direction",
    220: "USB (Linux, padded)",
    228: "raw IPv4",
    229: "raw IPv6",
    239: "NFLOG",
    249: "USBPcap",
    251: "Bluetooth LE",
    253: "netlink",
    276: "Linux cooked v2",
}


def linktype_name(number: int) -> str:
    """The usual name of a link type, or its number."""
    return _NAMES.get(number, f"link type {number}")
