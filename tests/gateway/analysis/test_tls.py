"""Hellos of TLS and the JA4 print of a client, byte by byte."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from gateway.analysis import tls

CIPHERS: Final = (
    *(0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014),
    *(0x009C, 0x009D, 0x002F, 0x0035),
)
ALGORITHMS: Final = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
GREASE: Final = 0x3A3A


def extension(code: int, data: bytes = b"") -> bytes:
    """One extension with its length."""
    return struct.pack(">HH", code, len(data)) + data


def numbers(items: tuple[int, ...]) -> bytes:
    """Numbers of 16 bits, one after the other."""
    return b"".join(struct.pack(">H", item) for item in items)


def sni(name: bytes) -> bytes:
    """The extension with the server's name."""
    return extension(0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name)


def alpn(*names: bytes) -> bytes:
    """The extension with the protocols offered."""
    body = b"".join(bytes([len(name)]) + name for name in names)
    return extension(16, struct.pack(">H", len(body)) + body)


def client_hello(ciphers: tuple[int, ...], extensions: bytes, version: int = 0x0303) -> tls.ClientHello:
    """What is read of a hello with these ciphers and extensions."""
    body = struct.pack(">H", version) + bytes(32) + b"\0" + struct.pack(">H", 2 * len(ciphers)) + numbers(ciphers)
    hello = tls.client_hello(body + b"\1\0" + struct.pack(">H", len(extensions)) + extensions)
    assert hello is not None
    return hello


def browser(*, name: bytes | None = b"www.example.net", protocols: tuple[bytes, ...] = (b"h2", b"http/1.1")) -> bytes:
    """The extensions of a browser of 2023, GREASE among them."""
    versions = numbers((GREASE, 0x0304, 0x0303))
    made = extension(GREASE) + extension(0x001B, b"\2\0\2") + (sni(name) if name is not None else b"")
    made += extension(0x0033, bytes(4)) + (alpn(*protocols) if protocols else b"") + extension(0x4469, b"\0\0")
    made += extension(0x0017) + extension(0x002D, b"\1\1")
    made += extension(0x000D, struct.pack(">H", 2 * len(ALGORITHMS)) + numbers(ALGORITHMS))
    made += extension(0x0005, bytes(5)) + extension(0x0023) + extension(0x0012)
    made += extension(0x002B, bytes([len(versions)]) + versions) + extension(0xFF01, b"\0") + extension(0x000B, b"\1\0")
    return made + extension(0x000A, bytes(4)) + extension(0x0015, bytes(100)) + extension(0x5A5A, b"\0")


def test_the_print_of_a_known_browser() -> None:
    """The worked example in the description of JA4; values of GREASE change nothing."""
    hello = client_hello((GREASE, *CIPHERS), browser())
    assert (hello.sni, hello.alpn, hello.best_version) == ("www.example.net", ["h2", "http/1.1"], 0x0304)
    assert tls.ja4(hello, "t") == "t13d1516h2_8daaf6152771_e5627efa2ab1"


@pytest.mark.parametrize(
    ("extensions", "begins"),
    [
        (browser(name=None), "q13i1515h2_"),
        (browser(protocols=()), "q13d151500_"),
        (browser(protocols=(b"h3",)), "q13d1516h3_"),
        (browser(protocols=(b"x",)), "q13d1516xx_"),
        (browser(protocols=(b"\xab\xcd",)), "q13d1516ad_"),
    ],
)
def test_name_and_protocol_are_part_of_the_print(extensions: bytes, begins: str) -> None:
    """A name is `d` and none is `i`; protocols give their first and last character, or digits where they have none."""
    assert tls.ja4(client_hello(CIPHERS, extensions), "q").startswith(begins)


def test_a_hello_that_offers_nothing_has_a_print() -> None:
    """Without lists the hashes are zeros; the version is that of the hello itself."""
    assert tls.ja4(client_hello((), b"", 0x0301), "t") == "t10i000000_000000000000_000000000000"


def test_a_name_in_other_letters_is_shown_as_people_write_it() -> None:
    """Punycode is decoded; what cannot be decoded is shown as it stands."""
    assert client_hello(CIPHERS, sni(b"xn--bcher-kva.example")).sni == "b\u00fccher.example"
    assert client_hello(CIPHERS, sni(b"xn--\xff.example")).sni == "xn--\ufffd.example"
