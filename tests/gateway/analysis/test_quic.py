"""Initial packets of QUIC: keys from public salts, hellos in any pieces, and what is no hello."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Any

import pytest

from gateway.analysis.aes import encrypt_block, expand_key
from tests.gateway.analysis.packets import Trace, udp
from tests.gateway.analysis.test_tls import CIPHERS, alpn, numbers, sni
from tests.gateway.analysis.wire import CLIENT, SERVER

V1, V2 = 0x00000001, 0x6B3343CF
SALTS = {
    V1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    V2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
}
CONNECTION = bytes.fromhex("8394c8f03e515708")


def derived(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0\1"
    return hmac.new(secret, info, hashlib.sha256).digest()[:size]


def keys(version: int) -> tuple[bytes, bytes, bytes]:
    """Key, nonce and header protection of a client's Initials."""
    client = derived(hmac.new(SALTS[version], CONNECTION, hashlib.sha256).digest(), "client in", 32)
    word = "quic" if version == V1 else "quicv2"
    return derived(client, f"{word} key", 16), derived(client, f"{word} iv", 12), derived(client, f"{word} hp", 16)


def length(value: int) -> bytes:
    """A number of variable length."""
    return bytes([value]) if value < 64 else struct.pack(">H", 0x4000 | value)


def initial(number: int, frames: bytes, version: int = V1, token: bytes = b"") -> bytes:
    """A protected Initial with a packet number of two bytes, and a tag of zeros, which nobody checks here."""
    key, iv, protection = keys(version)
    clear = frames.ljust(1100, b"\0")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    words, sealed = expand_key(key), b""
    for at in range(0, len(clear), 16):
        stream = encrypt_block(words, nonce + struct.pack(">I", at // 16 + 2))
        sealed += bytes(x ^ y for x, y in zip(clear[at : at + 16], stream, strict=False))
    sealed += bytes(16)
    head = bytearray([0xC1 if version == V1 else 0xD1, *version.to_bytes(4, "big"), len(CONNECTION), *CONNECTION, 0])
    head += length(len(token)) + token + length(len(sealed) + 2)
    mask = encrypt_block(expand_key(protection), sealed[2:18])
    head[0] ^= mask[0] & 15
    return bytes(head) + bytes([number >> 8 ^ mask[1], number & 255 ^ mask[2]]) + sealed


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\6" + length(offset) + length(len(data)) + data


def hello(name: bytes) -> bytes:
    """A ClientHello message."""
    extensions = sni(name) + alpn(b"h3")
    body = b"\3\3" + bytes(32) + b"\0" + struct.pack(">H", 2 * len(CIPHERS)) + numbers(CIPHERS)
    body += b"\1\0" + struct.pack(">H", len(extensions)) + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def seen(*datagrams: bytes) -> Any:
    """The row of a flow in which the client sent these."""
    trace = Trace()
    for number, data in enumerate(datagrams):
        trace.add(number / 1000, udp(CLIENT, 50_000, SERVER, 443, data))
    (row,) = trace.report()["quic"]["rows"]
    return row


def test_a_block_is_encrypted_as_the_standard_says() -> None:
    """The example of FIPS 197, appendix C.1."""
    words = expand_key(bytes(range(16)))
    clear = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert encrypt_block(words, clear).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def test_the_keys_of_this_test_are_those_of_the_standard() -> None:
    """The example of RFC 9001, appendix A.1."""
    key, iv, protection = keys(V1)
    assert key.hex() == "1f369613dd76d5467730efcbe3b1a22d"
    assert iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert protection.hex() == "9f50449e04a0e810283a1e9933adedd2"


@pytest.mark.parametrize(("version", "word"), [(V1, "1"), (V2, "2")])
def test_the_name_in_a_hello_of_each_version_is_read(version: int, word: str) -> None:
    """Both versions, with and without a token."""
    for token in (b"", bytes(70)):
        row = seen(initial(0, crypto(0, hello(b"quic.example")), version, token))
        assert (row["sni"], row["alpn"], row["version"]) == ("quic.example", ["h3"], word)


def test_a_hello_in_pieces_is_put_together() -> None:
    """Pieces in any order, in one packet or in several, with padding and pings between them, some of them twice."""
    whole = hello(b"a-longer-name.quic.example")
    first, second, third = (0, whole[:20]), (20, whole[20:70]), (70, whole[70:])
    frames = crypto(*third) + b"\1\0\0" + crypto(*first) + b"\1" + crypto(*second) + crypto(20, whole[20:30])
    assert seen(initial(0, frames))["sni"] == "a-longer-name.quic.example"
    apart = [initial(number, crypto(*piece)) for number, piece in enumerate((second, third, first))]
    assert seen(*apart)["sni"] == "a-longer-name.quic.example"


def test_a_piece_beyond_the_hello_does_not_hide_it() -> None:
    """What comes later in the stream is of no interest."""
    whole = hello(b"quic.example")
    assert seen(initial(0, crypto(len(whole) + 50, b"later") + crypto(0, whole)))["sni"] == "quic.example"


def test_a_hello_that_is_not_complete_has_no_name() -> None:
    """A gap stays a gap."""
    whole = hello(b"quic.example")
    assert seen(initial(0, crypto(0, whole[:40]) + crypto(50, whole[50:])))["sni"] is None
