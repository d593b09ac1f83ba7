"""Captures cut out of captures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.analysis.anonymize import Anonymizer
from gateway.analysis.cut import cut, cut_anonymised
from gateway.analysis.frames import CaptureFile
from tests.gateway.analysis.made_packets import CLIENT, SERVER, compressed, pcap, pcapng, udp

FRAMES = [udp((CLIENT, 1000 + n), (SERVER, 53), bytes([n]) * n) for n in range(1, 11)]


@pytest.mark.parametrize("make", [pcap, pcapng])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_whole_cut_is_the_file_again(tmp_path: Path, make: object, order: str) -> None:
    """Every record, header and interface description stands where it stood, byte for byte."""
    assert callable(make)
    data = make(FRAMES, order=order)
    path = tmp_path / "a"
    path.write_bytes(compressed(data))
    out = io.BytesIO()
    with CaptureFile.open(path) as capture:
        done = cut(capture, capture.walk(), out)
    assert out.getvalue() == data
    assert (done.packets, done.bytes, done.full) == (10, len(data), False)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_chosen_frames_come_with_what_describes_them(tmp_path: Path, make: object) -> None:
    """A cut of two frames reads back as exactly these, with their times."""
    assert callable(make)
    path, cut_path = tmp_path / "a", tmp_path / "b"
    path.write_bytes(make(FRAMES))
    with CaptureFile.open(path) as capture, cut_path.open("wb") as out:
        wanted = [record for record in capture.walk() if record.frame in {3, 7}]
        cut(capture, wanted, out)
    with CaptureFile.open(cut_path) as capture:
        found = list(capture.walk())
    assert [(r.data, r.t_ns, r.linktype) for r in found] == [(r.data, r.t_ns, r.linktype) for r in wanted]


def test_a_cut_stops_at_its_limit(tmp_path: Path) -> None:
    """The limit leaves a readable file and says that it was reached."""
    path, cut_path = tmp_path / "a", tmp_path / "b"
    path.write_bytes(pcap(FRAMES))
    with CaptureFile.open(path) as capture, cut_path.open("wb") as out:
        done = cut(capture, capture.walk(), out, limit_bytes=300)
    assert done.full
    assert cut_path.stat().st_size == done.bytes <= 300
    with CaptureFile.open(cut_path) as capture:
        assert len(list(capture.walk())) == done.packets > 0


def test_an_anonymised_cut_reads_back_with_lengths_and_times(tmp_path: Path) -> None:
    """The new file has the old rhythm and sizes and none of the old bytes."""
    path, cut_path = tmp_path / "a", tmp_path / "b"
    path.write_bytes(pcap(FRAMES))
    with CaptureFile.open(path) as capture, cut_path.open("wb") as out:
        done = cut_anonymised(capture.walk(), out, Anonymizer(b"k" * 32))
    assert (done.packets, done.left_out) == (10, 0)
    with CaptureFile.open(path) as before, CaptureFile.open(cut_path) as after:
        for old, new in zip(before.walk(), after.walk(), strict=True):
            assert (new.t_ns, new.wire_bytes, new.linktype) == (old.t_ns, old.wire_bytes, 1)
            assert len(new.data) == 42
            assert new.data[26:34] != old.data[26:34]
