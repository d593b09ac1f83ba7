"""Records of recordings."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from gateway.capture import recording
from gateway.capture.recording import Bounds, Recording


def _recording(name: str, **changes: object) -> Recording:
    made = Recording(name, "br-guest", "port 53", 1, Bounds(), started_unix=1.0, files=("a", "b"), sandbox=("x",))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    """Every field comes back."""
    made = _recording("20260101-000000-br-guest")
    recording.save(tmp_path, made)
    assert recording.load(tmp_path) == made


def test_damage_is_no_recording(tmp_path: Path) -> None:
    """A half-written record is ignored instead of raising."""
    (tmp_path / recording.RECORD).write_text('{"id": 1')
    assert recording.load(tmp_path) is None


def test_ids_sort_by_time_and_hold_no_path() -> None:
    """An interface with strange characters gives an id that is one name."""
    made = recording.new_id("veth/../ö@if3", "20260131-142501")
    assert recording.is_recording_id(made)
    assert "/" not in made
    assert not recording.is_recording_id("../etc")


def test_the_newest_is_listed_first(tmp_path: Path) -> None:
    """Foreign directories are left out."""
    for name in ("20260101-000000-lo", "20260102-000000-lo"):
        (tmp_path / name).mkdir()
        recording.save(tmp_path / name, _recording(name, status="finished"))
    (tmp_path / "other").mkdir()
    assert [item.id for item in recording.listing(tmp_path)] == ["20260102-000000-lo", "20260101-000000-lo"]
    assert recording.listing(tmp_path / "missing") == []


def test_a_recorder_that_is_gone_has_failed() -> None:
    """A record that says `recording` is believed only while its process lives, and a reused pid is another process."""
    mine = os.getpid()
    alive = _recording("a", pid=mine, pid_started=recording.process_started(mine))
    assert recording.as_it_stands(alive).status == "recording"
    reused = dataclasses.replace(alive, pid_started=1)
    assert recording.as_it_stands(reused).status == "failed"


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(max_bytes=1),
        Bounds(max_packets=0),
        Bounds(max_seconds=0),
        Bounds(snap_bytes=10),
        Bounds(ring_files=0),
    ],
)
def test_bounds_without_sense_are_named(bounds: Bounds) -> None:
    """Each problem is a sentence with the value and what is accepted."""
    (problem,) = bounds.problems()
    assert "out of range, accepted is" in problem
    assert not Bounds().problems()
