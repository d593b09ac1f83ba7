"""The codec: the reference vectors, what is refused, and that nothing but DecodeError comes out of any octets."""

from __future__ import annotations

import hmac
from hashlib import md5
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.radius.packets import (
    SIGNATURE_SLOT,
    Code,
    DecodeError,
    MessageAuthenticatorMissing,
    Packet,
    Type,
    attribute,
    chap_response,
    decode,
    decode_answer,
    decode_dynamic_request,
    encode_answer,
    encode_request,
    hide_password,
    integer_attribute,
    vendor_attribute,
)
from tests.gateway.radius.build import SECRET, answer

AUTHENTICATOR = bytes(range(16))
ACCESS_REQUEST = bytes.fromhex(
    "012a0046000102030405060708090a0b0c0d0e0f50122df74718e87530c96e2c8dcdef8d110a"
    "0107616c6963650212e18167ae118f167b7e2207240014828b20076e61733031"
)
ACCESS_ACCEPT = bytes.fromhex(
    "022a002c3ac2a037724f76cef805beb4b2c8ee235012ad5b9f6976b1e63840427f6558b92cfd1b0600000e10"
)
ACCOUNTING_START = bytes.fromhex(
    "042b0034901fec92d268acd1584758c30c2461302806000000012c1336376131623263332d30303030303032610107616c696365"
)
DISCONNECT_REQUEST = bytes.fromhex(
    "282c00392c12e1eb30322884a3034fc1f8b740f95012e3edae905fdeabb7b273060c36eaf96c2c1336376131623263332d3030303030303261"
)
DISCONNECT_NAK = bytes.fromhex(
    "2a2c002cb6d2692829da15233989b12bd56d5eaf50127c81652f8740e6eb89dba15ec6e121b06506000001f7"
)
SESSION = b"67a1b2c3-0000002a"


def _check(data: bytes, *, require: bool = False, secret: bytes = SECRET) -> Packet:
    return decode_answer(data, Code.ACCESS_REQUEST, 42, AUTHENTICATOR, secret, require_message_authenticator=require)


def test_access_request_vector() -> None:
    """An Access-Request with a hidden password and the signature first is written to the octet."""
    attributes = (
        SIGNATURE_SLOT
        + attribute(Type.USER_NAME, b"alice")
        + attribute(Type.USER_PASSWORD, hide_password(b"wonderland", SECRET, AUTHENTICATOR))
        + attribute(Type.NAS_IDENTIFIER, b"nas01")
    )
    assert encode_request(Code.ACCESS_REQUEST, 42, SECRET, attributes, AUTHENTICATOR)[0] == ACCESS_REQUEST


@given(st.binary(max_size=128), st.binary(min_size=1, max_size=40))
def test_hidden_password(password: bytes, secret: bytes) -> None:
    """A hidden password is whole blocks, at least one, each masked with what came before it (RFC 2865 §5.2)."""
    hidden = hide_password(password, secret, AUTHENTICATOR)
    blocks = [hidden[at : at + 16] for at in range(0, len(hidden), 16)]
    shown = b""
    for before, block in zip([AUTHENTICATOR, *blocks], blocks, strict=False):
        shown += bytes(a ^ b for a, b in zip(md5(secret + before).digest(), block, strict=True))
    assert len(shown) == max(16, -(-len(password) // 16) * 16)
    assert shown == password.ljust(len(shown), b"\0")


def test_long_password() -> None:
    """A password that does not fit is an error of the caller."""
    with pytest.raises(ValueError, match="129 octets"):
        hide_password(bytes(129), SECRET, AUTHENTICATOR)


def test_access_accept_vector() -> None:
    """The Access-Accept to it verifies, also when the signature is demanded."""
    accept = _check(ACCESS_ACCEPT, require=True)
    assert accept.code == Code.ACCESS_ACCEPT
    assert accept.integer("Session-Timeout") == 3600


def test_accounting_vector() -> None:
    """An Accounting-Request without signature gets its authenticator from its content."""
    attributes = (
        integer_attribute(Type.ACCT_STATUS_TYPE, 1)
        + attribute(Type.ACCT_SESSION_ID, SESSION)
        + attribute(Type.USER_NAME, b"alice")
    )
    data, authenticator = encode_request(Code.ACCOUNTING_REQUEST, 43, SECRET, attributes)
    assert data == ACCOUNTING_START
    assert authenticator == ACCOUNTING_START[4:20]


def test_disconnect_vectors() -> None:
    """A signed Disconnect-Request is written and read, and so is its NAK with Error-Cause 503."""
    attributes = SIGNATURE_SLOT + attribute(Type.ACCT_SESSION_ID, SESSION)
    assert encode_request(Code.DISCONNECT_REQUEST, 44, SECRET, attributes)[0] == DISCONNECT_REQUEST
    request = decode_dynamic_request(DISCONNECT_REQUEST, SECRET, require_message_authenticator=True)
    assert request.texts("Acct-Session-Id") == (SESSION.decode(),)
    nak = encode_answer(
        Code.DISCONNECT_NAK,
        44,
        SECRET,
        SIGNATURE_SLOT + integer_attribute(Type.ERROR_CAUSE, 503),
        request.authenticator,
    )
    assert nak == DISCONNECT_NAK


def test_chap_response_is_that_of_the_standard() -> None:
    """A CHAP response is MD5 over identifier, password and challenge (RFC 1994 §4.1)."""
    assert chap_response(7, b"secret", b"c" * 16).hex() == "67c2ce09a09524ad4557d151a8226ba7"  # by md5sum


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ACCESS_ACCEPT[:-1] + b"\x11", "authenticator"),
        (ACCESS_ACCEPT[:4] + bytes(16) + ACCESS_ACCEPT[20:], "authenticator"),
        (b"\x02\x2b" + ACCESS_ACCEPT[2:], "identifier"),
        (b"\x05" + ACCESS_ACCEPT[1:], "code"),
        (ACCESS_ACCEPT[:-1], "malformed"),
        (ACCESS_ACCEPT[:19], "malformed"),
        (b"", "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(Type.PROXY_STATE, b"x")), "proxy_state"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, SIGNATURE_SLOT), "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, b"\x50\x03x", sign=False), "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, b"\x50\x12" + b"x" * 16, sign=False), "authenticator"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, b"\x12\x01", sign=False), "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, b"\x12", sign=False), "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, b"\x12\x09abc", sign=False), "malformed"),
        (answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, secret=b"another1"), "authenticator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_that_are_wrong_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    """Every kind of wrong answer has its own reason for the counters."""
    with pytest.raises(DecodeError) as caught:
        _check(data)
    assert caught.value.reason == reason


def test_missing_signature_is_an_error_of_its_own() -> None:
    """A correct answer without Message-Authenticator passes unless it is demanded, and then says what is missing."""
    unsigned = answer(ACCESS_REQUEST, Code.ACCESS_REJECT, sign=False)
    assert _check(unsigned).code == Code.ACCESS_REJECT
    with pytest.raises(MessageAuthenticatorMissing):
        _check(unsigned, require=True)


@pytest.mark.parametrize(
    ("code", "vector"), [(Code.ACCOUNTING_REQUEST, bytes(16)), (Code.STATUS_SERVER, AUTHENTICATOR)]
)
def test_a_signed_answer_about_accounting_is_verified(code: Code, vector: bytes) -> None:
    """FreeRADIUS signs it over zeros, but over the authenticator where it answers a Status-Server (RFC 5997 §3)."""
    for zeros_or_not in (bytes(16), AUTHENTICATOR):
        head = bytes((Code.ACCOUNTING_RESPONSE, 42, 0, 44))
        rest = integer_attribute(Type.ERROR_CAUSE, 7)
        signature = hmac.digest(SECRET, head + zeros_or_not + SIGNATURE_SLOT + rest, "md5")
        attributes = SIGNATURE_SLOT[:2] + signature + rest
        data = head + md5(head + AUTHENTICATOR + attributes + SECRET).digest() + attributes
        if zeros_or_not == vector:
            decode_answer(data, code, 42, AUTHENTICATOR, SECRET, require_message_authenticator=True)
        else:
            with pytest.raises(DecodeError, match="authenticator is wrong"):
                decode_answer(data, code, 42, AUTHENTICATOR, SECRET, require_message_authenticator=True)


def test_octets_after_the_length_are_padding() -> None:
    """What follows the length field's end is ignored (RFC 2865 §3)."""
    assert _check(ACCESS_ACCEPT + b"padding").integer("Session-Timeout") == 3600


def test_packets_over_4096_octets_are_neither_read_nor_written() -> None:
    """4096 octets are the largest packet (RFC 2865 §3)."""
    with pytest.raises(ValueError, match="4096"):
        encode_request(Code.ACCESS_REQUEST, 1, SECRET, attribute(Type.CLASS, b"x" * 253) * 16, AUTHENTICATOR)
    huge = b"\x02\x01" + (5000).to_bytes(2, "big") + bytes(4996)
    with pytest.raises(DecodeError):
        decode(huge)


@pytest.mark.parametrize("value", [b"", b"x" * 254])
def test_attributes_that_do_not_fit_are_not_written(value: bytes) -> None:
    """An attribute has 1 to 253 octets."""
    with pytest.raises(ValueError):
        attribute(Type.CLASS, value)


def test_values_of_the_wrong_length_raise() -> None:
    """A number with three octets is an error of the peer, not of ours."""
    packet = decode(answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(27, b"\0\0\1")))
    with pytest.raises(DecodeError, match="Session-Timeout has 3 octets"):
        packet.integer("Session-Timeout")


def test_several_values_keep_their_order() -> None:
    """Class attributes come back as often and in the order in which they were sent."""
    data = answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(25, b"b") + attribute(18, b"hi") + attribute(25, b"a"))
    assert _check(data).octets("Class") == (b"b", b"a")


def test_several_vendor_attributes_in_one_are_found() -> None:
    """One attribute 26 may hold several of the vendor's (RFC 2865 §5.26)."""
    inner = bytes((4, 6)) + (64).to_bytes(4, "big") + bytes((5, 6)) + (128).to_bytes(4, "big")
    packet = _check(answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(26, (14559).to_bytes(4, "big") + inner)))
    assert packet.integer("ChilliSpot-Bandwidth-Max-Up") == 64
    assert packet.integer("ChilliSpot-Bandwidth-Max-Down") == 128
    assert packet.of_vendors


def test_texts_lose_control_characters() -> None:
    """Octets that are not UTF-8 are replaced and control characters dropped, so that logs stay lines."""
    packet = _check(answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(18, b"a\0b\x1b[1m\xffc\nd")))
    assert packet.texts("Reply-Message") == ("ab[1m�c\nd",)


def test_unknown_attributes_are_named_by_number() -> None:
    """What the dictionary does not know is listed by its number, or vendor and number."""
    data = answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, attribute(200, b"x") + vendor_attribute(9, 1, b"y"), sign=False)
    assert _check(data).names() == (200, (9, 1))


@settings(deadline=None)
@given(st.binary(max_size=4200))
def test_any_octets_raise_nothing_but_decode_errors(data: bytes) -> None:
    """No octets at all make the readers raise anything else."""
    for read in (
        lambda: _read_everything(decode(data)),
        lambda: _check(data),
        lambda: decode_dynamic_request(data, SECRET, require_message_authenticator=False),
    ):
        try:
            read()
        except DecodeError:
            pass


_NAMED = {"User-Name": 1, "Reply-Message": 18, "State": 24, "Class": 25, "Proxy-State": 33}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(_NAMED)), st.binary(min_size=1, max_size=253)), max_size=12))
def test_attributes_survive_the_way_there_and_back(attributes: list[tuple[str, bytes]]) -> None:
    """Decoding what was encoded gives every value of every attribute, in order within its name."""
    encoded = b"".join(attribute(_NAMED[name], value) for name, value in attributes)
    packet = decode(encode_request(Code.ACCOUNTING_REQUEST, 9, SECRET, encoded)[0])
    for name in _NAMED:
        assert packet.octets(name) == tuple(value for other, value in attributes if other == name)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=20)), max_size=12))
def test_an_answer_is_read_as_pyrad_reads_it(attributes: list[tuple[int, bytes]]) -> None:
    """Whatever is in it, vendors' attributes well and badly made among them; and for a secret of any length."""
    encoded = b"".join(
        bytes((number, len(value) + 2)) + value for number, value in attributes if number not in (33, 80)
    )
    for secret in (SECRET, b"long" * 30):
        data = answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, encoded, secret=secret)
        read, expected = _check(data, secret=secret), decode(data)
        assert read.names() == expected.names()
        assert read._attributes == expected._attributes
        assert (read.code, read.identifier, read.authenticator) == (Code.ACCESS_ACCEPT, 42, data[4:20])
        assert read.of_vendors is expected.of_vendors


def test_damaged_packets_raise_nothing_but_decode_errors() -> None:
    """20,000 seeded damages (flipped, cut, repeated, nested) to good packets are read or refused, never worse."""
    random = Random(5176)
    vendor = (14559).to_bytes(4, "big")
    nested = attribute(26, vendor + bytes((26, 12)) + vendor + b"\x01\x06\0\0\0\1")
    seeds = [
        ACCESS_ACCEPT,
        DISCONNECT_REQUEST,
        answer(ACCESS_REQUEST, Code.ACCESS_ACCEPT, nested + attribute(25, b"x" * 253) * 3),
    ]
    for _ in range(20_000):
        data = bytearray(random.choice(seeds))
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(data)) if data else 0
            match random.randrange(4):
                case 0 if data:
                    data[at] ^= 1 << random.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = data[at : at + random.randrange(40)]
                case _ if len(data) > 3:
                    data[2:4] = random.randrange(len(data) + 8).to_bytes(2, "big")
        for read in (decode, _check):
            try:
                _read_everything(read(bytes(data)))
            except DecodeError:
                pass


def _read_everything(packet: Packet) -> None:
    for name in packet.names():
        if isinstance(name, str):
            packet.octets(name)
            packet.texts(name)
            packet.integers(name)
