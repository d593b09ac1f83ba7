"""The administration from a guest's side: nothing of it is there, wherever it listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.administration import Administration
from tests.netns.harness import UPLINK, UPLINK4, Lab
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root

PORT = 8443


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Lab, Hotspot]]:
    """A hotspot with a guest, before and after login."""
    with Lab("adminreach") as lab:
        lab.start_internet()
        with Hotspot(lab, zone_options="\tlist method 'password'\n") as hotspot:
            hotspot.add_user("alice", "wonderland")
            hotspot.lease(lab.guest)
            yield lab, hotspot


def answers(lab: Lab, namespace: str, address: str) -> int:
    """curl's exit code for the login page: 0 when it is there."""
    command = ["curl", "-sk", "--max-time", "4", "-o", "/dev/null", f"https://{address}:{PORT}/login"]
    return lab.run(namespace, command, check=False, timeout_s=15).returncode


@pytest.mark.parametrize("place", [f"0.0.0.0:{PORT}", f"{UPLINK}:{PORT}"], ids=["everywhere", "uplink"])
def test_a_guest_reaches_no_page_of_it(stage: tuple[Lab, Hotspot], place: str) -> None:
    """Neither held nor logged in, by no address of the gateway; the gateway itself and its uplink's side do."""
    lab, hotspot = stage
    zone = str(lab.zones[0].address.ip)
    with Administration(hotspot, places=(place,), namespace=lab.gateway, port=PORT):
        assert answers(lab, lab.internet, str(UPLINK4)) == 0, "it does listen"
        for state in ("held", "online"):
            if state == "online":
                hotspot.log_in(lab.guest, "alice", "wonderland")
            assert hotspot.state(lab.guest) == state
            for address in (zone, str(UPLINK4)):
                assert answers(lab, lab.guest.netns, address) != 0, f"{state}: {address}"
        hotspot.log_out(lab.guest)


def test_the_process_has_no_power_and_no_method_of_its_own(stage: tuple[Lab, Hotspot]) -> None:
    """No capability (inheritable ones are none by themselves), a user of its own, and a short list at the socket."""
    lab, hotspot = stage
    with Administration(hotspot) as administration:
        assert administration.process is not None
        with open(f"/proc/{administration.process.pid}/status", encoding="ascii") as status:  # noqa: PTH123
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        for name in ("CapPrm", "CapEff", "CapAmb"):
            assert int(lines[name], 16) == 0, name
        assert set(lines["Uid"].split()) != {"0"}
    script = (
        "import os, sys; from pathlib import Path\n"
        "from webui.privileges import become; from gateway.control.blocking import SyncControlClient\n"
        "from gateway.control.protocol import ControlError\n"
        "become(sys.argv[2])\n"
        "with SyncControlClient(Path(sys.argv[1])) as client:\n"
        "    print(client.call('admin.state', {})['version'])\n"
        "    for method in ('status', 'sessions.list', 'users.list', 'config.text', 'portal.config', 'client.login'):\n"
        "        try:\n"
        "            client.call(method, {})\n"
        "            print('allowed', method)\n"
        "        except ControlError as err:\n"
        "            print(err.code, method)\n"
    )
    out = lab.python(lab.gateway, script, str(hotspot.socket), "sync")
    assert "allowed" not in out
    assert out.count("denied") == 6
