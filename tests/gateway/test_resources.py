"""What the box has left."""

from __future__ import annotations

from pathlib import Path

from gateway.resources import disk_bytes, memory_bytes


def test_memory_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    """In kibibytes; an unknown system has none."""
    (tmp_path / "meminfo").write_text("MemTotal:         512000 kB\nMemFree: 1 kB\nMemAvailable:     128000 kB\n")
    assert memory_bytes(tmp_path / "meminfo") == (512000 * 1024, 128000 * 1024)
    assert memory_bytes(tmp_path / "none") == (0, 0)
    total, available = memory_bytes()
    assert 0 < available <= total


def test_room_is_that_of_the_file_system(tmp_path: Path) -> None:
    """And a directory that is gone has none."""
    total, free = disk_bytes(tmp_path)
    assert 0 < free <= total
    assert disk_bytes(tmp_path / "none") == (0, 0)
