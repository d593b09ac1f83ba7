"""Capture files of bounded size."""

from __future__ import annotations

import struct
from pathlib import Path

from gateway.analysis.frames import CaptureFile
from gateway.capture.files import RingFiles


def _record(size: int, n: int = 0) -> bytes:
    return struct.pack("=IIII", 1_700_000_000, n, size, size) + bytes([n % 256]) * size


def _files(directory: Path, file_bytes: int, ring: int) -> RingFiles:
    return RingFiles(directory, linktype=1, snap_bytes=65535, file_bytes=file_bytes, ring=ring)


def test_a_single_file_stops_when_it_is_full(tmp_path: Path) -> None:
    """The record that does not fit is refused, and the file is readable with nanoseconds."""
    files = _files(tmp_path, 24 + 3 * 116, 1)
    assert [files.write(_record(100, n)) for n in range(5)] == [True, True, True, False, False]
    files.close()
    assert (tmp_path / "capture-0001.pcap").stat().st_size == files.total_bytes == 24 + 3 * 116
    with CaptureFile.open(tmp_path / "capture-0001.pcap") as capture:
        assert [record.t_ns % 10**9 for record in capture.walk()] == [0, 1, 2]


def test_a_ring_keeps_the_newest_files(tmp_path: Path) -> None:
    """Ten records in files of two, three files kept: the last six or so, never more than three files."""
    files = _files(tmp_path, 24 + 2 * 116, 3)
    assert all(files.write(_record(100, n)) for n in range(10))
    files.close()
    assert files.names == ("capture-0003.pcap", "capture-0004.pcap", "capture-0005.pcap")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(files.names)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == files.total_bytes


def test_a_record_larger_than_a_file_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """A limit smaller than one packet does not stop the recording or start endless files."""
    files = _files(tmp_path, 50, 2)
    assert files.write(_record(500))
    files.close()
    assert files.names == ("capture-0001.pcap",)


def test_flushed_records_can_be_read_while_the_recording_runs(tmp_path: Path) -> None:
    """`analyze` on a growing file sees whole records."""
    files = _files(tmp_path, 10_000, 1)
    files.write(_record(100))
    files.flush()
    with CaptureFile.open(tmp_path / "capture-0001.pcap") as capture:
        assert len(list(capture.walk())) == 1
    files.close()
