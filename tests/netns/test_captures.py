"""A recording of a phone, asked of a daemon without root: recorded, handed on, analysed, each as another user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.analysis import job
from gateway.control.blocking import SyncControlClient
from tests.netns.captures import Captures
from tests.netns.harness import Lab
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A guest, a gateway and an Internet."""
    with Lab("captures") as made:
        made.start_internet()
        yield made


def test_a_phone_is_recorded_and_its_capture_analysed(lab: Lab) -> None:
    """Four users share the spool under a strict umask; the recorder holds no capability of the daemon's."""
    before = os.umask(0o077)
    try:
        with Hotspot(lab, user="daemon") as hotspot, Captures(hotspot) as captures:
            hotspot.lease(lab.guest)
            with SyncControlClient(hotspot.socket) as daemon:
                params = {"client": str(lab.guest.mac), "seconds": 60}
                started = daemon.call("captures.record", params)  # type: ignore[arg-type]
                assert isinstance(started, dict)
                directory = captures.spool / str(started["id"])
                record = (directory / "record.json").read_text()
                assert '"user: on uid' in record
                pid = int(record.partition('"pid": ')[2].partition(",")[0])
                with Path(f"/proc/{pid}/status").open(encoding="ascii") as status:
                    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
                assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
                hotspot.curl(lab.guest, "http://connectivitycheck.gstatic.com/generate_204")
                daemon.call("captures.stop", {"id": started["id"]})
            state = captures.analysed()
            assert (state.status, state.error) == ("completed", None)
            assert state.packets >= 6
            assert state.name.startswith(str(lab.guest.mac).replace(":", ""))
            modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
            assert modes[job.CAPTURE] == modes[job.REPORT] == modes[job.STATE] == 0o660
    finally:
        os.umask(before)
