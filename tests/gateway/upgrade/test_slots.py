"""Which slot runs, what the boot loader remembers, and what became of an upgrade."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upgrade import environment
from gateway.upgrade.environment import BlockDamaged
from gateway.upgrade.slots import NoSlots, Slots, here
from gateway.upgrade.story import Story, after_start, boot_id, tell, told

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=10)
VALUES = st.text("abcdefghijklmnopqrstuvwxyz0123456789./-", max_size=20)


@given(st.dictionaries(NAMES, VALUES, max_size=10))
def test_the_block_gives_back_what_was_put_in(values: dict[str, str]) -> None:
    """Always 1024 octets, which GRUB rewrites in place."""
    block = environment.encode(values)
    assert len(block) == 1024
    assert environment.decode(block) == values


@pytest.mark.parametrize("block", [b"", b"#" * 1024, b"# GRUB Environment Block\n", bytes(1024)])
def test_a_damaged_block_is_refused(block: bytes) -> None:
    """It is never rewritten from a guess."""
    with pytest.raises(BlockDamaged):
        environment.decode(block)


def test_what_does_not_fit_is_refused() -> None:
    """A value too long, or one that would begin another line."""
    with pytest.raises(BlockDamaged):
        environment.encode({"a": "x" * 1024})
    with pytest.raises(BlockDamaged):
        environment.encode({"a": "b\ntrial=a"})


def test_the_note_of_the_initramfs_says_what_runs(tmp_path: Path) -> None:
    """Slot, kind of start, and where the partitions are."""
    note = tmp_path / "slot"
    note.write_text("slot=b\nstart=trial\ndisk=/dev/vda\nboot=/dev/vda1\ndata=/dev/vda4\n")
    slots = here(note)
    assert (slots.running, slots.other, slots.trial) == ("b", "a", True)
    assert slots.device("a") == Path("/dev/vda2")


def test_a_cards_partitions_have_names_of_their_own(tmp_path: Path) -> None:
    """A Raspberry Pi's card has a letter between disk and number."""
    note = tmp_path / "slot"
    note.write_text("slot=a\nstart=good\ndisk=/dev/mmcblk0p\nboot=/dev/mmcblk0p1\ndata=/dev/mmcblk0p4\n")
    assert here(note).device(here(note).other) == Path("/dev/mmcblk0p3")


def test_off_an_image_there_are_no_slots(tmp_path: Path) -> None:
    """The message says how such a system is upgraded."""
    with pytest.raises(NoSlots, match="package manager"):
        here(tmp_path / "none")


def slots_of(data: Path, running: str, *, trial: bool = False) -> Slots:
    """Slots with their story in a directory of the test."""
    return Slots(running, trial, "/dev/null", "/dev/null", data)


@pytest.mark.parametrize(
    ("told_state", "running", "trial", "state"),
    [
        ("trial", "a", False, "rolled back"),
        ("trial", "b", True, "trial"),
        ("trial", "b", False, "committed"),
        ("committed", "b", False, "committed"),
        ("verified", "a", False, "interrupted"),
        ("installed", "a", False, "interrupted"),
    ],
)
def test_a_story_of_an_earlier_start_is_judged(
    tmp_path: Path, told_state: str, running: str, trial: bool, state: str
) -> None:
    """What was under way when the device started anew has come to an end, which one the running slot shows."""
    tell(tmp_path, Story(told_state, "2.0", "abc", "b"))
    story = after_start(slots_of(tmp_path, running, trial=trial), "a later start")
    assert story is not None
    assert story.state == state


def test_a_story_of_this_start_is_as_it_was_told(tmp_path: Path) -> None:
    """Between the order to try the other slot and the restart nothing has failed yet."""
    tell(tmp_path, Story("trial", "2.0", "abc", "b"))
    story = after_start(slots_of(tmp_path, "a"), boot_id())
    assert story is not None
    assert story.state == "trial"


def test_the_reason_of_a_failure_is_kept(tmp_path: Path) -> None:
    """What the proof found is what the operator reads after the way back."""
    tell(tmp_path, Story("trial", "2.0", "abc", "b", "the portal does not answer"))
    story = after_start(slots_of(tmp_path, "a"), "a later start")
    assert story is not None
    assert (story.state, story.text) == ("rolled back", "the portal does not answer")


def test_everybody_may_read_the_story_and_only_root_writes_it(tmp_path: Path) -> None:
    """postern-system's strict umask does not keep it from posternd, and whoever reads it changes nothing."""
    before = os.umask(0o077)
    try:
        tell(tmp_path, Story("trial", "2.0", "abc", "b"))
    finally:
        os.umask(before)
    path = tmp_path / "upgrade.json"
    assert path.stat().st_mode & 0o777 == 0o644
    octets = path.read_bytes()
    after_start(slots_of(tmp_path, "a"), "a later start")
    assert path.read_bytes() == octets


def test_a_story_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """Half a file after a power cut says nothing."""
    (tmp_path / "upgrade.json").write_text('{"state": "tri')
    assert told(tmp_path) is None
    assert after_start(slots_of(tmp_path, "a"), boot_id()) is None
