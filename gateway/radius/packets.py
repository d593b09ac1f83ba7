"""RADIUS packets: octets in, checked values out, and back (RFC 2865, 2866, 5176; the only door to pyrad).

pyrad decodes, verifies dynamic-authorization requests and reads our dictionary files. What it lets through is refused
here first: a broken attribute chain, packets over 4096 octets, more than one Message-Authenticator (RFC 3579 §3.2).
Requests are put together here from attributes that are already octets, passwords are hidden here: pyrad's generic way
costs 36 µs for a login, this one 6 µs, and most attributes of a gateway never change. Answers are verified here on the
octets as they came, and one without vendors' attributes is read by that check already: 8 µs in the place of 40.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

from pyrad import packet as pyrad_packet
from pyrad.dictionary import Dictionary

HEADER_OCTETS: Final = 20
MAX_OCTETS: Final = 4096  # RFC 2865 §3
MAX_PASSWORD_OCTETS: Final = 128  # RFC 2865 §5.2
_ZEROS: Final = bytes(16)


Key = int | tuple[int, int]  # attribute number, or vendor and number


class DecodeError(Exception):
    """The peer is wrong. `reason` is one short word for counters, the text a sentence for the log."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class MessageAuthenticatorMissing(DecodeError):
    """A correct answer that lacks the Message-Authenticator which is demanded of this server."""


class Code(IntEnum):
    """Packet codes."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


class Type(IntEnum):
    """Numbers of the attributes that we write."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CHAP_PASSWORD = 3
    NAS_IP_ADDRESS = 4
    NAS_PORT = 5
    SERVICE_TYPE = 6
    FRAMED_IP_ADDRESS = 8
    REPLY_MESSAGE = 18
    STATE = 24
    CLASS = 25
    CALLED_STATION_ID = 30
    CALLING_STATION_ID = 31
    NAS_IDENTIFIER = 32
    PROXY_STATE = 33
    ACCT_STATUS_TYPE = 40
    ACCT_DELAY_TIME = 41
    ACCT_INPUT_OCTETS = 42
    ACCT_OUTPUT_OCTETS = 43
    ACCT_SESSION_ID = 44
    ACCT_AUTHENTIC = 45
    ACCT_SESSION_TIME = 46
    ACCT_INPUT_PACKETS = 47
    ACCT_OUTPUT_PACKETS = 48
    ACCT_TERMINATE_CAUSE = 49
    ACCT_INPUT_GIGAWORDS = 52
    ACCT_OUTPUT_GIGAWORDS = 53
    EVENT_TIMESTAMP = 55
    CHAP_CHALLENGE = 60
    NAS_PORT_TYPE = 61
    MESSAGE_AUTHENTICATOR = 80
    NAS_PORT_ID = 87
    CHARGEABLE_USER_IDENTITY = 89
    NAS_IPV6_ADDRESS = 95
    ERROR_CAUSE = 101
    FRAMED_IPV6_ADDRESS = 168


# Put before all other attributes, it is filled in when the packet is signed (RFC 3579 §3.2; first against BlastRADIUS).
SIGNATURE_SLOT: Final = bytes((Type.MESSAGE_AUTHENTICATOR, 18)) + _ZEROS

# All our dictionary files. Any: pyrad has no types.
_DICTIONARY: Final[Any] = Dictionary(*(str(path) for path in sorted((Path(__file__).parent / "dictionary").iterdir())))
_KEYS: Final[dict[str, Key]] = {
    name: (_DICTIONARY.vendors.GetForward(found.vendor), found.code) if found.vendor else found.code
    for name, found in _DICTIONARY.attributes.items()
}
_NAMES: Final[dict[Key, str]] = {key: name for name, key in _KEYS.items()}
# Attributes that hold others, which pyrad takes apart: Vendor-Specific, and what the dictionary calls so.
_NESTED: Final[frozenset[Key]] = frozenset(
    {26, *(_KEYS[name] for name, found in _DICTIONARY.attributes.items() if found.type == "tlv")}
)
# As plain numbers: a member of an enumeration takes several times as long to compare and to hash.
_MESSAGE_AUTHENTICATOR: Final = Type.MESSAGE_AUTHENTICATOR.value
_PROXY_STATE: Final = Type.PROXY_STATE.value

_ANSWERS: Final[dict[int, tuple[Code, ...]]] = {
    Code.ACCESS_REQUEST: (Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE),
    Code.ACCOUNTING_REQUEST: (Code.ACCOUNTING_RESPONSE,),
    Code.STATUS_SERVER: (Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE),
}


class Packet:
    """A decoded packet: its header, and its attributes by the names of our dictionary.

    Readers return the values of all occurrences in order, an empty tuple when there is none, and raise DecodeError for
    a value of the wrong length. Attributes that the dictionary does not know are in `names` by number.
    """

    __slots__ = ("_attributes", "authenticator", "code", "identifier", "of_vendors")

    def __init__(self, data: bytes, attributes: dict[Key, list[bytes]]) -> None:
        self.code = data[0]
        self.identifier = data[1]
        self.authenticator = bytes(data[4:HEADER_OCTETS])
        self._attributes = attributes
        self.of_vendors = any(type(key) is tuple for key in attributes)  # whether any vendor's is in it

    def names(self) -> tuple[str | Key, ...]:
        """What is in the packet: names, or numbers where the dictionary has no name."""
        return tuple(_NAMES.get(key, key) for key in self._attributes)

    def has(self, name: str) -> bool:
        """Whether an attribute is present."""
        return _KEYS[name] in self._attributes

    def octets(self, name: str) -> tuple[bytes, ...]:
        """The raw values of an attribute."""
        return tuple(self._attributes.get(_KEYS[name], ()))

    def texts(self, name: str) -> tuple[str, ...]:
        """The values as text; what is not UTF-8 is replaced, control characters are dropped."""
        return tuple(_printable(value) for value in self._attributes.get(_KEYS[name], ()))

    def integers(self, name: str) -> tuple[int, ...]:
        """The values as unsigned 32-bit numbers (RFC 2865 §5)."""
        values = self._attributes.get(_KEYS[name], ())
        for value in values:
            _demand_length(name, value, 4)
        return tuple(int.from_bytes(value, "big") for value in values)

    def integer(self, name: str) -> int | None:
        """The first value as a number, None when the attribute is absent; every occurrence is checked."""
        if _KEYS[name] not in self._attributes:
            return None
        return self.integers(name)[0]

    def ipv4(self, name: str) -> tuple[IPv4Address, ...]:
        """The values as IPv4 addresses."""
        return tuple(IPv4Address(_demand_length(name, value, 4)) for value in self.octets(name))

    def ipv6(self, name: str) -> tuple[IPv6Address, ...]:
        """The values as IPv6 addresses (RFC 3162 §2.1)."""
        return tuple(IPv6Address(_demand_length(name, value, 16)) for value in self.octets(name))


def attribute(number: int, value: bytes) -> bytes:
    """Write one attribute; raises ValueError when the value is longer than 253 octets or empty (RFC 2865 §5)."""
    if not 0 < len(value) <= 253:
        raise ValueError(f"attribute {number} would have {len(value)} octets; 1 to 253 fit")
    return bytes((number, len(value) + 2)) + value


def vendor_attribute(vendor: int, number: int, value: bytes) -> bytes:
    """Write one attribute of a vendor (RFC 2865 §5.26); raises ValueError over 247 octets."""
    return attribute(26, vendor.to_bytes(4, "big") + bytes((number, len(value) + 2)) + value)


def integer_attribute(number: int, value: int) -> bytes:
    """Write one attribute with a 32-bit number; raises OverflowError outside its range."""
    return bytes((number, 6)) + value.to_bytes(4, "big")


def address_attribute(value: IPv4Address | IPv6Address) -> bytes:
    """Write NAS-IP-Address or NAS-IPv6-Address, by the family."""
    number = Type.NAS_IP_ADDRESS if value.version == 4 else Type.NAS_IPV6_ADDRESS
    return attribute(number, value.packed)


def hide_password(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """The value of User-Password (RFC 2865 §5.2); raises ValueError over 128 octets."""
    if len(password) > MAX_PASSWORD_OCTETS:
        raise ValueError(f"a password of {len(password)} octets; {MAX_PASSWORD_OCTETS} fit")
    padded = password + bytes(-len(password) % 16 if password else 16)
    hidden = b""
    before = authenticator
    for at in range(0, len(padded), 16):
        mask = int.from_bytes(hashlib.md5(secret + before).digest(), "big")
        before = (int.from_bytes(padded[at : at + 16], "big") ^ mask).to_bytes(16, "big")
        hidden += before
    return hidden


def chap_response(ident: int, password: bytes, challenge: bytes) -> bytes:
    """The 16 octets that answer a CHAP challenge (RFC 1994 §4.1, RFC 2865 §5.3)."""
    return hashlib.md5(bytes((ident,)) + password + challenge).digest()


def encode_request(
    code: int, identifier: int, secret: bytes, attributes: bytes, authenticator: bytes | None = None
) -> tuple[bytes, bytes]:
    """Put a request together and sign it; returns the packet and its Request Authenticator.

    Access-Request and Status-Server bring a random authenticator; without one it is computed from the content, as for
    accounting and dynamic authorization (RFC 2866 §3, RFC 5176 §2.3), the signature before it (RFC 5176 §3.4).
    """
    head = _head(code, identifier, attributes)
    attributes = _sign(head + (authenticator or _ZEROS), attributes, secret)
    if authenticator is None:
        authenticator = hashlib.md5(head + _ZEROS + attributes + secret).digest()
    return head + authenticator + attributes, authenticator


def encode_answer(code: int, identifier: int, secret: bytes, attributes: bytes, request_authenticator: bytes) -> bytes:
    """Put an answer together and sign it with the authenticator of its request (RFC 2865 §3, RFC 5176 §3.4)."""
    head = _head(code, identifier, attributes)
    attributes = _sign(head + request_authenticator, attributes, secret)
    return head + hashlib.md5(head + request_authenticator + attributes + secret).digest() + attributes


def decode(data: bytes) -> Packet:
    """Read a packet without verifying who sent it; raises DecodeError for anything that is not well formed."""
    return Packet(data, _attributes(_decode(data)))


def decode_answer(
    data: bytes,
    code: int,
    identifier: int,
    authenticator: bytes,
    secret: bytes,
    *,
    require_message_authenticator: bool,
) -> Packet:
    """Read the answer to our request and verify it (RFC 2865 §3, RFC 3579 §3.2, CVE-2024-3596).

    Raises DecodeError with reason malformed, identifier, code, proxy_state or authenticator, and
    MessageAuthenticatorMissing for an answer that is right but for that.
    """
    attributes, signature_at = _split(data)
    if data[1] != identifier:
        raise DecodeError("identifier", f"identifier {data[1]} instead of {identifier}")
    if data[0] not in _ANSWERS[code]:
        raise DecodeError("code", f"code {data[0]} does not answer code {code}")
    if _PROXY_STATE in attributes:
        raise DecodeError("proxy_state", "it carries a Proxy-State that we did not send")
    if not _answers(data, code, authenticator, secret, signature_at):
        raise DecodeError("authenticator", "its authenticator is wrong (is the secret the same on both sides?)")
    if require_message_authenticator and not signature_at:
        raise MessageAuthenticatorMissing("message_authenticator_missing", "it has no Message-Authenticator")
    if not _NESTED.isdisjoint(attributes):
        attributes = _attributes(_read(data))
    return Packet(data, attributes)


def decode_dynamic_request(data: bytes, secret: bytes, *, require_message_authenticator: bool) -> Packet:
    """Read a Disconnect-Request or CoA-Request and verify who sent it, in constant time (RFC 5176 §2.3, §3.4).

    Raises DecodeError with reason malformed, code, authenticator or message_authenticator.
    """
    decoded = _decode(data, pyrad_packet.CoAPacket, secret)
    if decoded.code not in (Code.DISCONNECT_REQUEST, Code.COA_REQUEST):
        raise DecodeError("code", f"code {decoded.code} is no Disconnect-Request or CoA-Request")
    if not decoded.VerifyCoARequest():
        raise DecodeError("authenticator", "its authenticator is wrong (is the secret the same on both sides?)")
    if Type.MESSAGE_AUTHENTICATOR not in decoded:
        if require_message_authenticator:
            raise DecodeError("message_authenticator", "it has no Message-Authenticator, which is demanded")
    elif not decoded.verify_message_authenticator():
        raise DecodeError("message_authenticator", "its Message-Authenticator is wrong")
    return Packet(data, _attributes(decoded))


def _decode(data: bytes, kind: Any = pyrad_packet.Packet, secret: bytes = b"") -> Any:
    """Check the chain of attributes, then let pyrad read the packet. Any: pyrad's packet classes have no types."""
    _split(data)
    return _read(data, kind, secret)


def _attributes(decoded: Any) -> dict[Key, list[bytes]]:
    """What pyrad read."""
    return dict(decoded.items())


def _read(data: bytes, kind: Any = pyrad_packet.Packet, secret: bytes = b"") -> Any:
    """Let pyrad read a packet whose chain was checked."""
    try:
        return kind(secret=secret, packet=bytes(data), dict=_DICTIONARY)
    except pyrad_packet.PacketError as err:
        raise DecodeError("malformed", str(err)) from err


def _answers(data: bytes, code: int, authenticator: bytes, secret: bytes, signature_at: int) -> bool:
    """Whether Response Authenticator and Message-Authenticator, if there is one, are right; in constant time.

    Both are made with the authenticator of the request in the place of the answer's (RFC 2865 §3, RFC 3579 §3.2), but
    the second of an Accounting-Response with zeros there, as servers sign it.
    """
    length = int.from_bytes(data[2:4], "big")
    head, attributes = data[:4] + authenticator, data[HEADER_OCTETS:length]
    right = hmac.compare_digest(hashlib.md5(head + attributes + secret).digest(), data[4:HEADER_OCTETS])
    if not signature_at:
        return right
    value_at = signature_at + 2 - HEADER_OCTETS
    unsigned = attributes[:value_at] + _ZEROS + attributes[value_at + 16 :]
    signature = attributes[value_at : value_at + 16]
    if code == Code.ACCOUNTING_REQUEST:
        head = data[:4] + _ZEROS
    return hmac.compare_digest(_hmac_md5(secret, head + unsigned), signature) and right


def _hmac_md5(secret: bytes, data: bytes) -> bytes:
    """RFC 2104 with the key's two blocks hashed before: OpenSSL takes longer to find the algorithm than to use it."""
    inner, outer = (half.copy() for half in _keyed(secret))
    inner.update(data)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(64)
def _keyed(secret: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    key = (secret if len(secret) <= 64 else hashlib.md5(secret).digest()).ljust(64, b"\0")
    return hashlib.md5(bytes(octet ^ 0x36 for octet in key)), hashlib.md5(bytes(octet ^ 0x5C for octet in key))


def _split(data: bytes) -> tuple[dict[Key, list[bytes]], int]:
    """The attributes by number, and where the Message-Authenticator is (0: there is none); DecodeError if they do not
    fill the packet.
    """
    if len(data) < HEADER_OCTETS:
        raise DecodeError("malformed", f"it has {len(data)} octets; a header has {HEADER_OCTETS}")
    length = int.from_bytes(data[2:4], "big")
    if not HEADER_OCTETS <= length <= min(MAX_OCTETS, len(data)):
        raise DecodeError("malformed", f"its length field says {length}, and {len(data)} octets came")
    at = HEADER_OCTETS
    signature_at = 0
    attributes: dict[Key, list[bytes]] = {}
    while at < length:
        size = data[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            raise DecodeError("malformed", f"the attribute at octet {at} is cut off or has no length")
        number = data[at]
        if number == _MESSAGE_AUTHENTICATOR:
            if signature_at or size != 18:
                raise DecodeError("malformed", "it has two Message-Authenticators, or one of the wrong length")
            signature_at = at
        attributes.setdefault(number, []).append(bytes(data[at + 2 : at + size]))
        at += size
    return attributes, signature_at


def _head(code: int, identifier: int, attributes: bytes) -> bytes:
    length = HEADER_OCTETS + len(attributes)
    if length > MAX_OCTETS:
        raise ValueError(f"a packet of {length} octets; {MAX_OCTETS} are allowed")
    return bytes((code, identifier)) + length.to_bytes(2, "big")


def _sign(header: bytes, attributes: bytes, secret: bytes) -> bytes:
    if not attributes.startswith(SIGNATURE_SLOT):
        return attributes
    return attributes[:2] + _hmac_md5(secret, header + attributes) + attributes[18:]


def _demand_length(name: str, value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise DecodeError("attribute", f"{name} has {len(value)} octets instead of {length}")
    return value


def _printable(value: bytes) -> str:
    return "".join(letter for letter in value.decode("utf-8", "replace") if letter >= " " or letter == "\n")
