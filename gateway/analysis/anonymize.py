"""Making a capture or a report fit for strangers: addresses mapped, names replaced, payload gone.

Addresses keep their prefixes in common (two hosts of one network stay neighbours) under a key that is drawn for each
export and never stored, in the manner of Crypto-PAn with a keyed hash as the random function. Private networks stay
within themselves, multicast, loopback and broadcast stay as they are, so that the picture still makes sense. Of a
packet there remain the link header, the IP header and the header behind it; lengths stay true, checksums are made new
as if the payload were zeros.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from gateway.analysis.headers import ICMP, ICMP6, IPV4, IPV6, SCTP, TCP, UDP, Packet, ethertype_of, locate

ETHERNET, RAW = 1, 101
ARP: Final = 0x0806
# Networks that are mapped onto themselves, so that private stays private and public stays public.
_CLOSED: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.168.0.0/16", "224.0.0.0/3", "::/96", "fc00::/7", "fe80::/10", "ff00::/8"),
    )
)
# Of these even the host part stays: they name no host.
_KEPT: Final = tuple(ip_network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8"))
_HEADER_BYTES: Final = {UDP: 8, ICMP: 8, ICMP6: 8, SCTP: 12, 2: 8, 47: 4}  # what stays of the header behind IP

_IPV4: Final = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
_MAC: Final = r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])"
_IPV6: Final = r"(?<![\w:.])(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:]{2,39}(?![\w:])"
_ADDRESS: Final = re.compile(f"{_MAC}|{_IPV4}|{_IPV6}")


class Anonymizer:
    """One mapping, for one export. `key` is 32 random bytes; `keep` are addresses that stay, such as the gateway's."""

    def __init__(self, key: bytes, *, keep: Iterable[IPv4Address | IPv6Address] = ()) -> None:
        self._key = key
        self._keep = {address.packed for address in keep}
        self._addresses: dict[bytes, bytes] = {}
        self._flips: dict[tuple[int, int, int], int] = {}
        self._closed = {
            (network.max_prefixlen, bits, int(network.network_address) >> (network.max_prefixlen - bits))
            for network in _CLOSED
            for bits in range(network.prefixlen)
        }

    def address(self, packed: bytes) -> bytes:
        """An IPv4 or IPv6 address, as bytes, mapped."""
        known = self._addresses.get(packed)
        if known is None:
            known = self._map(packed)
            if len(self._addresses) < 100_000:
                self._addresses[packed] = known
        return known

    def mac(self, octets: bytes) -> bytes:
        """A hardware address mapped to a locally administered one; group addresses and zeros stay."""
        if octets[0] & 1 or not any(octets):
            return octets
        hashed = bytearray(self._hash(b"mac" + octets, 6))
        hashed[0] = (hashed[0] & 0xFC) | 2
        return bytes(hashed)

    def token(self, name: str) -> str:
        """A name replaced: the same name gives the same token within one export."""
        return "name-" + self._hash(b"name" + name.lower().encode("utf-8", "surrogatepass"), 5).hex()

    def packet(self, linktype: int, data: bytes, wire_bytes: int) -> tuple[int, bytes, int] | None:
        """(link type, bytes, length on the wire) of a packet made anonymous; `None` if nothing of it can stay.

        Link layers other than Ethernet are left out, the IP packet in them stays as raw IP.
        """
        packet = locate(linktype, data, wire_bytes)
        if packet is not None:
            network = self._ip(packet, data)
            if linktype != ETHERNET:
                return RAW, network, max(0, wire_bytes - packet.network)
            return ETHERNET, self._ethernet(data[: packet.network]) + network, wire_bytes
        found = ethertype_of(linktype, data)
        if linktype != ETHERNET or found is None:
            return None
        at, ethertype = found
        link = self._ethernet(data[:at])
        if ethertype == ARP and len(data) >= at + 28 and data[at + 4 : at + 6] == b"\x06\x04":
            sender = self.mac(data[at + 8 : at + 14]) + self.address(data[at + 14 : at + 18])
            target = self.mac(data[at + 18 : at + 24]) + self.address(data[at + 24 : at + 28])
            return ETHERNET, link + data[at : at + 8] + sender + target, wire_bytes
        if ethertype in {IPV4, IPV6, ARP}:  # a header that was cut or is of an odd kind
            return None
        return ETHERNET, link, wire_bytes

    def _ethernet(self, header: bytes) -> bytes:
        return self.mac(header[0:6]) + self.mac(header[6:12]) + header[12:]

    def _ip(self, packet: Packet, data: bytes) -> bytes:
        at = packet.network
        source, target = self.address(packet.source), self.address(packet.target)
        if packet.version == 4:
            options_end = at + (data[at] & 15) * 4
            header = bytearray(data[at : at + 10] + b"\0\0" + source + target)
            header += b"\x01" * (len(data[at:options_end]) - 20)  # options hold addresses: no-operations instead
            header[10:12] = _checksum(bytes(header)).to_bytes(2, "big")
            behind = options_end
        else:
            header = bytearray(data[at : at + 8] + source + target)
            behind = packet.transport if packet.transport >= 0 else at + 40
            header += _emptied_extensions(data[at + 6], data[at + 40 : behind])
        if packet.transport < 0:
            return bytes(header)
        return bytes(header) + self._transport(packet, data[behind:], source, target)

    def _transport(self, packet: Packet, data: bytes, source: bytes, target: bytes) -> bytes:
        size = _HEADER_BYTES.get(packet.protocol, 0)
        if packet.protocol == TCP:
            size = (data[12] >> 4) * 4 if len(data) > 12 else 0
        kept = bytearray(data[:size])
        if packet.protocol in {ICMP, ICMP6} and len(kept) == 8 and kept[0] in {5, 137}:
            kept[4:8] = bytes(4)  # the address of a redirect
        at = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}.get(packet.protocol)
        if at is not None and len(kept) >= at + 2 and not packet.fragment:
            kept[at : at + 2] = b"\0\0"
            pseudo = b""
            if packet.protocol != ICMP:
                pseudo = source + target + packet.payload_bytes.to_bytes(4, "big") + bytes((0, packet.protocol))
            kept[at : at + 2] = (_checksum(pseudo + bytes(kept)) or 0xFFFF).to_bytes(2, "big")
        return bytes(kept)

    def _map(self, packed: bytes) -> bytes:
        bits = len(packed) * 8
        address = ip_address(packed)
        if packed in self._keep or any(address in network for network in _KEPT if network.version == address.version):
            return packed
        value, out = int.from_bytes(packed, "big"), 0
        for length in range(bits):
            prefix = value >> (bits - length)
            node = (bits, length, prefix)
            flip = 0
            if node not in self._closed:
                cached = self._flips.get(node)
                if cached is None:
                    cached = self._hash(b"%d/%d/%d" % node, 1)[0] & 1
                    if length < 24 or len(self._flips) < 200_000:
                        self._flips[node] = cached
                flip = cached
            out = out << 1 | (value >> (bits - 1 - length) & 1) ^ flip
        return out.to_bytes(len(packed), "big")

    def _hash(self, text: bytes, size: int) -> bytes:
        return hashlib.blake2b(text, key=self._key, digest_size=size).digest()


def anonymise_report(report: Mapping[str, Any], anonymizer: Anonymizer) -> dict[str, Any]:
    """A report with addresses mapped, names replaced and paths gone, in every field and sentence."""
    # A name without a dot could be any word of ours, so only names with one are looked for inside sentences.
    known = sorted((name for name in _names(report) if "." in name), key=len, reverse=True)
    inside = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, known))})(?![\w-])", re.IGNORECASE) if known else None
    replaced = {
        section: value if section in {"generator", "settings"} else _rewrite(value, anonymizer, inside, section, "")
        for section, value in report.items()
    }
    capture = replaced["capture"]
    capture["name"], capture["sha256"] = "anonymised", ""
    for interface in capture["interfaces"]:
        interface["name"] = ""
    return replaced


_NAMED_SECTIONS: Final = frozenset({"flows", "dns", "tls", "http", "quic", "dhcp", "hosts", "devices"})
_NAME_FIELDS: Final = frozenset({"sni", "name", "names", "host", "hosts", "answers", "exempt", "services"})
_GONE_FIELDS: Final = frozenset({"path", "user_agent", "content_type", "vendor", "hostname"})


def _names(report: Mapping[str, Any]) -> set[str]:
    """Every name of a host that the report holds in a field of its own."""
    found: set[str] = set()

    def walk(value: Any, field: str) -> None:  # Any: a JSON document
        if isinstance(value, dict):
            for key, item in value.items():
                if field in {"hosts", "names"}:
                    found.add(key)
                walk(item, key)
        elif isinstance(value, list):
            for item in value:
                walk(item, field)
        elif isinstance(value, str) and field in _NAME_FIELDS:
            found.add(value)

    for section in _NAMED_SECTIONS:
        walk(report[section], "")
    for finding in report["findings"]:
        for value in finding["evidence"].values():
            if isinstance(value, str) and re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}\.?", value):
                found.add(value)
    return {name for name in found if not _ADDRESS.fullmatch(name)}


def _rewrite(
    value: Any, anonymizer: Anonymizer, inside: re.Pattern[str] | None, section: str, field: str
) -> Any:  # Any: a JSON document
    if isinstance(value, dict):
        named_keys = section in _NAMED_SECTIONS and field in {"hosts", "names"}
        return {
            (_whole(key, anonymizer) if named_keys else key): _rewrite(item, anonymizer, inside, section, key)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rewrite(item, anonymizer, inside, section, field) for item in value]
    if not isinstance(value, str):
        return value
    if field in _GONE_FIELDS:
        return "-"
    if section in _NAMED_SECTIONS and field in _NAME_FIELDS:
        return _whole(value, anonymizer)
    if inside is not None:
        value = inside.sub(lambda match: anonymizer.token(match[0]), value)
    return _ADDRESS.sub(lambda match: _mapped(match[0], anonymizer), value)


def _whole(text: str, anonymizer: Anonymizer) -> str:
    """A field that is a name or an address and nothing else."""
    return _mapped(text, anonymizer) if _ADDRESS.fullmatch(text) else anonymizer.token(text)


def _mapped(text: str, anonymizer: Anonymizer) -> str:
    if text.count(":") == 5 and len(text) == 17:
        return anonymizer.mac(bytes.fromhex(text.replace(":", ""))).hex(":")
    try:
        return str(ip_address(anonymizer.address(ip_address(text).packed)))
    except ValueError:  # looks like an address, is a time of day or a version
        return text


def _emptied_extensions(following: int, raw: bytes) -> bytes:
    """IPv6 extension headers with the inside of options and routing replaced by padding."""
    out, at = bytearray(raw), 0
    while at + 8 <= len(raw):
        size = 8 if following == 44 else (raw[at + 1] + 2) * 4 if following == 51 else (raw[at + 1] + 1) * 8
        if following in {0, 43, 60}:
            out[at + 2 : at + size] = bytes(len(out[at + 2 : at + size]))
        following = raw[at]
        at += size
    return bytes(out)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
