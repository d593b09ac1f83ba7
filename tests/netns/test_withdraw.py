"""`posternd --withdraw`, as it is called when the package is removed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.netns.harness import Lab
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A gateway with one guest network."""
    with Lab("withdraw", guests_wanted=1) as made:
        made.start_internet()
        yield made


def withdraw(hotspot: Hotspot) -> subprocess.CompletedProcess[str]:
    """What a package's script calls."""
    words = [sys.executable, "-m", "gateway", "--withdraw", str(hotspot.config_path)]
    return hotspot.lab.run(hotspot.lab.gateway, words, check=False)


def left(lab: Lab) -> list[str]:
    """What of a gate is in the kernel."""
    asked = {
        "table": (["nft", "list", "tables"], "inet postern"),
        "guard": (["tc", "filter", "show", "dev", lab.zones[0].bridge, "ingress"], "postern "),
        "hooks": (["tc", "qdisc", "show", "dev", lab.zones[0].bridge], "clsact"),
        "address": (["ip", "-4", "address"], str(lab.zones[0].address.ip)),
        "forwarding": (["cat", "/proc/sys/net/ipv4/ip_forward"], "1"),
    }
    return [name for name, (words, mark) in asked.items() if mark in lab.run(lab.gateway, words).stdout]


def test_what_a_stop_leaves_is_taken_out(lab: Lab) -> None:
    """Table, guards, address and forwarding go; a second call finds nothing and changes nothing."""
    with Hotspot(lab, zone_options="\tlist method 'password'\n") as hotspot:
        hotspot.stop_web()
        hotspot.stop_daemon()
        assert left(lab) == ["table", "guard", "hooks", "address", "forwarding"]
        done = withdraw(hotspot)
        assert (done.returncode, done.stdout) == (0, "everything of ours is out of the kernel\n"), done.stderr
        assert left(lab) == []
        # Whatever is set from now on is somebody else's.
        lab.run(lab.gateway, ["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
        assert withdraw(hotspot).stdout == "nothing of ours is in the kernel\n"
        assert left(lab) == ["forwarding"]
