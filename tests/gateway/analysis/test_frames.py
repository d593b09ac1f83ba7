"""Going back to frames by number, by offset, compressed or not, whole or broken."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis.frames import Anchor, CaptureFile, unpack
from gateway.analysis.refusals import AnalysisRefused
from tests.gateway.analysis.made_packets import CLIENT, SERVER, compressed, pcap, pcapng, udp
from tests.gateway.analysis.packets import analyse

FRAMES = [udp((CLIENT, 1000 + n), (SERVER, 53), bytes([n]) * n) for n in range(1, 21)]


def _read(path: Path, anchor: Anchor | None = None, **where: int) -> list[tuple[int, bytes]]:
    with CaptureFile.open(path) as capture:
        return [(record.frame, record.data) for record in capture.walk(anchor, **where)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [pcap, pcapng])
@pytest.mark.parametrize("packed", [False, True])
def test_every_frame_of_every_form_is_found(tmp_path: Path, order: str, make: object, packed: bool) -> None:
    """Byte order, file form and compression do not matter."""
    assert callable(make)
    data = make(FRAMES, order=order)
    path = tmp_path / "a"
    path.write_bytes(compressed(data) if packed else data)
    assert _read(path) == list(enumerate(FRAMES, 1))


def test_a_range_of_frames_is_read_from_an_anchor(tmp_path: Path) -> None:
    """A walk that begins in the middle gives the same records as one from the start."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(FRAMES))
    with CaptureFile.open(path) as capture:
        tenth = next(record for record in capture.walk() if record.frame == 10)
    assert _read(path, Anchor(10, tenth.offset), first=12, last=14) == list(enumerate(FRAMES, 1))[11:14]


def test_nothing_before_the_anchor_is_needed(tmp_path: Path) -> None:
    """With everything between the file header and the anchor overwritten, the frames behind it are still right."""
    path = tmp_path / "a.pcap"
    data = pcap(FRAMES)
    path.write_bytes(data)
    with CaptureFile.open(path) as capture:
        tenth = next(record for record in capture.walk() if record.frame == 10)
    path.write_bytes(data[:24] + b"\xff" * (tenth.offset - 24) + data[tenth.offset :])
    assert _read(path, Anchor(10, tenth.offset), first=10)[0] == (10, FRAMES[9])


def mixed(order: str = "<") -> bytes:
    """A pcapng file with every block that holds a packet or counts as one; frames 2, 3, 4, 6 and 7 are packets."""

    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(order + "I", 12 + len(body))
        return struct.pack(order + "I", kind) + size + body + size

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    def enhanced(t: int, data: bytes) -> bytes:
        return block(6, struct.pack(order + "IIIII", 0, t >> 32, t & 0xFFFFFFFF, len(data), len(data)) + padded(data))

    custom = block(0x0BAD, struct.pack(order + "I", 32_473) + b"ours")
    simple = block(3, struct.pack(order + "I", len(FRAMES[2])) + padded(FRAMES[2]))
    old = struct.pack(order + "HHIIII", 0, 0, 0, 7_000_000, len(FRAMES[3]), len(FRAMES[3])) + padded(FRAMES[3])
    offset = struct.pack(order + "HHqHH", 14, 8, 1_700_000_000, 0, 0)
    return b"".join(
        (
            block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)),
            block(1, struct.pack(order + "HHI", 1, 0, 65_535) + offset),
            custom,
            enhanced(1_000_000, FRAMES[1]),
            simple,
            block(2, old),
            custom,
            enhanced(9_000_000, FRAMES[5]),
            enhanced(9_500_000, FRAMES[6]),
        )
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_frames_are_numbered_as_the_report_numbers_them(tmp_path: Path, order: str) -> None:
    """Custom blocks count, simple and old blocks are packets, and each flow of the report is found at its offset."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(mixed(order))
    with CaptureFile.open(path) as capture:
        records = list(capture.walk())
    assert [(record.frame, record.data) for record in records] == [
        (2, FRAMES[1]), (3, FRAMES[2]), (4, FRAMES[3]), (6, FRAMES[5]), (7, FRAMES[6])
    ]  # fmt: skip
    second = 1_700_000_000 * 10**9
    assert [record.t_ns - second for record in records] == [10**9, 10**9, 7 * 10**9, 9 * 10**9, 9_500_000_000]
    report = analyse(path.read_bytes())
    assert report["capture"]["packets"] == 7
    for row in report["flows"]["rows"]:
        found = _read(
            path, Anchor(row["first_frame"], row["offset"]), first=row["first_frame"], last=row["first_frame"]
        )
        assert found == [(row["first_frame"], FRAMES[row["orig_port"] - 1001])]


def test_times_are_nanoseconds_of_the_clock(tmp_path: Path) -> None:
    """Microseconds of the file become nanoseconds since 1970."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(0.25, FRAMES[0])]))
    with CaptureFile.open(path) as capture:
        assert next(iter(capture.walk())).t_ns == 1_700_000_000_250_000_000


def test_a_cut_file_gives_what_is_whole(tmp_path: Path) -> None:
    """The record that was cut is left out, without an exception."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(FRAMES)[:-5])
    assert len(_read(path)) == len(FRAMES) - 1


def test_a_cut_compressed_file_gives_what_could_be_unpacked(tmp_path: Path) -> None:
    """A gzip stream that ends early is read up to there."""
    path = tmp_path / "a.pcap.gz"
    path.write_bytes(compressed(pcap(FRAMES))[:-40])
    assert 5 < len(_read(path)) < len(FRAMES)


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    """Text is refused by name, and the file is closed (a warning would be an error here)."""
    path = tmp_path / "a"
    path.write_text("hello, this is not a capture at all")
    with pytest.raises(AnalysisRefused) as refused:
        CaptureFile.open(path)
    assert refused.value.error == "not-a-capture"


def test_unpacking_stops_at_its_limit(tmp_path: Path) -> None:
    """A file that grows too large leaves nothing behind; one within the limit is the same as the original."""
    data = pcap(FRAMES)
    packed, scratch = tmp_path / "a.gz", tmp_path / "scratch"
    packed.write_bytes(compressed(data))
    assert not unpack(packed, scratch, limit_bytes=100)
    assert list(tmp_path.iterdir()) == [packed]
    assert unpack(packed, scratch, limit_bytes=1 << 20)
    assert scratch.read_bytes() == data


@given(st.binary(max_size=400), st.sampled_from([pcap, pcapng]), st.integers(0, 300))
def test_no_bytes_break_the_walk(tmp_path_factory: pytest.TempPathFactory, noise: bytes, make: object, at: int) -> None:
    """Noise anywhere in a file ends the walk or changes frames, and nothing else."""
    assert callable(make)
    data = make(FRAMES[:4])
    path = tmp_path_factory.mktemp("noise") / "a"
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])
    try:
        assert len(_read(path)) <= 100
    except AnalysisRefused:
        assert at < 24
