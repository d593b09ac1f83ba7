"""Another DHCP server on a guest network: the question that finds it, its answer, and what that means. Pure.

The question is a DHCPDISCOVER of a made-up client (RFC 2131 §3.1) with the broadcast flag, so that the answer reaches
us. Our own server does not see it: the kernel hands what we send to nobody on this machine. For the same reason a
second server on this very machine is not found this way, but by the port that it holds (`sockets_in_use`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Zone
from gateway.dhcp.frames import BROADCAST_MAC, CLIENT_PORT, ETH_P_IP, SERVER_PORT
from gateway.dhcp.v4_codec import (
    BROADCAST_FLAG,
    DecodeError,
    Message,
    MessageType,
    Op,
    Option,
    decode,
    encode,
    read_word,
    write_word,
)
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

_FRAME: Final = struct.Struct("!6s6sH")
_IP: Final = struct.Struct("!BBHHHBBHII")
_UDP: Final = struct.Struct("!HHHH")
_EVERYBODY: Final = 0xFFFFFFFF
# Classic BPF as in `dhcp.frames`: unfragmented UDP over IPv4 to the client's port.
OFFER_FILTER: Final = (
    (0x28, 0, 0, 12),
    (0x15, 0, 8, ETH_P_IP),
    (0x30, 0, 0, 23),
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, 0x3FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 0, 1, CLIENT_PORT),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)


@value_class
class Offer:
    """Somebody offers addresses to our guests."""

    server: IPv4Address
    server_mac: MacAddress
    offered: IPv4Address
    router: IPv4Address | None


@value_class
class Asked:
    """The answers of one network; `trouble` when it could not be asked."""

    offers: tuple[Offer, ...] = ()
    trouble: str = ""


def write_discover(mac: MacAddress, xid: int) -> bytes:
    """The frame of a DHCPDISCOVER from a made-up client."""
    parameters = bytes((Option.SUBNET_MASK, Option.ROUTER, Option.DNS_SERVERS))
    # The shortest lease that one may ask for: what the other server sets aside is free again soon.
    options = {int(Option.PARAMETER_LIST): parameters, int(Option.LEASE_TIME): write_word(60)}
    message = Message(
        Op.REQUEST, MessageType.DISCOVER, xid, mac.ljust(16, b"\0"), flags=BROADCAST_FLAG, options=options
    )
    payload = encode(message)
    length = 8 + len(payload)
    header = _IP.pack(0x45, 0, 20 + length, 0, 0x4000, 64, 17, 0, 0, _EVERYBODY)
    checksum = 0xFFFF - int.from_bytes(header, "big") % 0xFFFF
    ip = _IP.pack(0x45, 0, 20 + length, 0, 0x4000, 64, 17, checksum, 0, _EVERYBODY)
    # A UDP checksum of 0 is none (RFC 768); relays and servers take it.
    udp = _UDP.pack(CLIENT_PORT, SERVER_PORT, length, 0)
    return _FRAME.pack(BROADCAST_MAC, mac, ETH_P_IP) + ip + udp + payload


def read_offer(frame: bytes, xid: int) -> Offer | None:
    """The offer in a frame that OFFER_FILTER let through, None when it is no answer to us; raises DecodeError."""
    udp = 14 + (frame[14] & 15) * 4 if len(frame) >= 42 else len(frame)
    if udp + 8 > len(frame):
        raise DecodeError("the frame is cut off")
    message = decode(frame[udp + 8 :])
    if message.op != Op.REPLY or message.kind is not MessageType.OFFER or message.xid != xid:
        return None
    server = read_word(message.options.get(Option.SERVER_ID, b"")) or message.siaddr
    router = read_word(message.options.get(Option.ROUTER, b"")[:4])
    return Offer(
        IPv4Address(server),
        MacAddress(frame[6:12]),
        IPv4Address(message.yiaddr),
        None if router is None else IPv4Address(router),
    )


def judge_segment(zone: Zone, asked: Asked, own_mac: MacAddress | None) -> Row:
    """What the answers on a guest network mean."""
    check = f"zone {zone.name}: other DHCP servers"
    if asked.trouble:
        return skipped(check, f"{zone.interface} could not be asked: {asked.trouble}.")
    others = [offer for offer in asked.offers if offer.server_mac != own_mac or offer.server != zone.address.ip]
    if not others:
        return ok(check, f"Nobody else gives out addresses on {zone.interface}.")
    named = dict.fromkeys(f"{offer.server} ({offer.server_mac})" for offer in others)
    offered = ", ".join(dict.fromkeys(str(offer.offered) for offer in others))
    return fail(
        check,
        f"Another DHCP server answers on {zone.interface}: {', '.join(named)}, which offers {offered}. Guests who take "
        "that get no login page, and perhaps no Internet.",
        "Find the device by its MAC address (an access point or router with its LAN port plugged in here, most "
        "often) and switch off its DHCP server, or unplug it.",
    )


def judge_pool(zone: Zone, bound: int, size: int) -> Row:
    """How much of the pool is given out."""
    check = f"zone {zone.name}: addresses"
    text = f"{bound} of {size} addresses are given out."
    if size == 0:
        return fail(check, "The pool has no address to give out.", "Set option pool of this zone.")
    remedy = (
        f"Shorten lease_time of zone {zone.name}, or widen its address and pool: a /22 has room for a thousand devices."
    )
    if bound >= size:
        return fail(check, f"{text} New guests get none.", remedy)
    if bound >= 0.9 * size:
        return warn(check, f"{text} The pool is nearly used up.", remedy)
    return ok(check, text)


def judge_listening(zones: Sequence[Zone], listening: Mapping[str, bool]) -> list[Row]:
    """Whether our own server serves each zone."""
    rows = []
    for zone in zones:
        check = f"zone {zone.name}: DHCP"
        if listening.get(zone.name):
            rows.append(ok(check, f"Addresses are given out on {zone.interface}."))
        else:
            text = f"No addresses are given out on {zone.interface}: it is away or down, or somebody has port 67."
            remedy = (
                f"Bring {zone.interface} up; if the row ports names another DHCP server, keep it off this interface."
            )
            rows.append(fail(check, text, remedy))
    return rows
