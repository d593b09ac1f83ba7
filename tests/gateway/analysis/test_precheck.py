"""What is told from the first bytes of an upload: refusals by name, the same however the bytes are cut."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis import precheck
from gateway.analysis.precheck import Precheck
from gateway.analysis.refusals import AnalysisRefused
from tests.gateway.analysis.made_packets import conversation, pcap


def header(linktype: int, order: str = "<") -> bytes:
    """The header of a pcap file."""
    return struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype)


def outcome(data: bytes, step: int = 1 << 16) -> str:
    """The name of the refusal, or `fine`."""
    check = Precheck()
    try:
        for at in range(0, len(data), step):
            check.feed(data[at : at + step])
        check.finish()
    except AnalysisRefused as refused:
        return refused.error
    return "fine"


CAPTURE = pcap(conversation())
SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
CASES = [
    (CAPTURE, "fine"),
    (gzip.compress(CAPTURE), "fine"),
    (gzip.compress(CAPTURE[:30]) + gzip.compress(CAPTURE[30:]) + b"\0" * 9, "fine"),
    (SECTION + SECTION, "fine"),
    (b"", "not-a-capture"),
    (b"\xd4", "not-a-capture"),
    (b"<!DOCTYPE html><title>404</title>", "not-a-capture"),
    (b"PK\x03\x04" + bytes(100), "not-a-capture"),
    (gzip.compress(b"hello, this is text and no capture"), "not-a-capture"),
    (gzip.compress(b""), "not-a-capture"),
    (header(1), "empty"),
    (gzip.compress(header(1)), "empty"),
    (header(253, ">") + bytes(100), "unsupported-linktype"),
    (gzip.compress(header(195)), "unsupported-linktype"),
    (header(1 | 0x24000000) + bytes(100), "fine"),
    (b"\x1f\x8b" + b"x" * 400, "gzip-corrupt"),
    (gzip.compress(CAPTURE)[:-12], "fine"),
]


@pytest.mark.parametrize(("data", "wanted"), CASES)
@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_the_first_bytes_tell(data: bytes, wanted: str, step: int) -> None:
    """By magic number and link type, plain and compressed; a cut tail is no reason to refuse."""
    assert outcome(data, step) == wanted


def test_a_bomb_is_refused_early() -> None:
    """A file that grows a thousandfold is refused before a hundredth of it is unpacked, in little memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(CAPTURE) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    tracemalloc.start()
    try:
        assert outcome(bomb) == "gzip-bomb"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    check = Precheck()
    with pytest.raises(AnalysisRefused):
        check.feed(bomb)
    assert check._unpacked < 11 << 20


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound nothing more is unpacked; the analysis goes on measuring."""
    monkeypatch.setattr(precheck, "LOOKED_BYTES", 1 << 20)
    check = Precheck()
    check.feed(gzip.compress(CAPTURE + bytes(range(256)) * 8192 * 4, 1))
    check.feed(b"anything at all")
    check.finish()
    assert check._unpacked <= (1 << 20) + (1 << 18)


@given(data=st.binary(max_size=300), step=st.integers(1, 50), packed=st.booleans())
def test_any_bytes_end_with_a_name(data: bytes, step: int, packed: bool) -> None:
    """Nothing but a refusal is raised, and the cut does not matter."""
    data = gzip.compress(data) if packed else data
    assert outcome(data, step) == outcome(data)
