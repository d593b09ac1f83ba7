"""The image as whoever flashed it meets it: it boots, guests get in, it survives power cuts, upgrades and resets."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.appliance import BOOT_LIMIT_S, Appliance, appliance
from tests.image.conftest import BOARD, Built, Bundles, flipped
from tests.netns.harness import INTERNET4, UPLINK4, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

MEMORY_LIMIT_MB = 190
PLACE = "/var/lib/postern/upgrade/new"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print at once: whoever waits for an emulated machine wants to see that it goes on."""

    def print_now(text: str) -> None:
        with capsys.disabled():
            print(f"\n  image: {text}", end="", flush=True)

    return print_now


def test_it_boots_and_lets_a_guest_in(built: Built, say: Callable[[str], None]) -> None:
    """From power on to a guest with a voucher in the Internet."""
    with appliance(built.disk, BOARD, "boot") as box:
        began = time.monotonic()
        box.wait_until_open()
        say(f"gate open after {time.monotonic() - began:.0f} s")
        say(nothing_has_failed(box))
        a_guest_logs_in_by_voucher(box)
        say("a guest has logged in by voucher")


@pytest.mark.skipif(
    "POSTERN_BOARD" not in os.environ,
    reason="starts an emulated machine eight times: sudo ./build.sh boot BOARD --test",
)
def test_power_cuts_upgrades_and_a_reset(built: Built, bundles: Bundles, say: Callable[[str], None]) -> None:
    """One machine goes through all of it in order, because each start is a minute of emulation."""
    with appliance(built.disk, BOARD, "story") as box:
        box.wait_until_open()
        made_here = what_the_device_made(box)
        a_guest_logs_in_by_voucher(box)
        serve(box, built.directory)

        assert "damaged" in upgrade(box, flipped(bundles.newer))
        assert "slot=a" in box.machine.ask("cat /run/postern-slot")
        say("a bundle with one flipped bit is refused")

        power_is_cut_during_a_write(box)
        assert what_the_device_made(box) == made_here
        say("it came back after a power cut during a write")

        assert "slot b" in upgrade(box, bundles.newer)
        box.wait_until_open()
        assert wait_for(lambda: story(box) == ("newer", "b", "good", "committed"), timeout_s=900, every_s=5), story(box)
        assert what_the_device_made(box) == made_here
        assert box.postern("vouchers", "list")["rows"][0]["state"] != "unused"
        say("an upgrade boots, proves itself and stays; sessions and vouchers came along")

        for bundle in (bundles.panicking, bundles.failing):
            assert "slot a" in upgrade(box, bundle)
            # It starts the new version, gives up, and starts the old one again: this prompt is the last of both.
            assert wait_for(lambda: fell_back(box), timeout_s=3 * BOOT_LIMIT_S, every_s=5), box.machine.log[-3000:]
            box.wait_until_open()
            assert story(box)[:2] == ("newer", "b")
            assert story(box)[3] == "rolled back"
            say(f"{bundle.stem}: the version before is back by itself")

        name = box.machine.ask("hostname").split()[-1]
        box.machine.forget()
        box.machine.type(f"postern factory-reset --confirm {name}")
        box.machine.wait_for(box.machine.power_on, BOOT_LIMIT_S)
        box.machine.forget()
        box.wait_until_open()
        assert what_the_device_made(box) != made_here
        assert box.postern("vouchers", "list")["rows"] == []
        say("a factory reset leads back to the first set-up")


def what_the_device_made(box: Appliance) -> list[str]:
    """What no image holds and each device makes: its machine id and its setup code."""
    said = box.machine.ask("cat /etc/machine-id; postern setup-code")
    found = re.findall(r"\b(?:[0-9a-f]{32}|[A-Z0-9]{4}(?:-[A-Z0-9]{4}){2,})\b", said)
    assert len(found) == 2, said
    return found


def nothing_has_failed(box: Appliance) -> str:
    """No unit has failed, each process has its own user, the administration answers, memory is within its limit."""
    box.machine.ask("systemctl is-system-running --wait", BOOT_LIMIT_S)  # the gate opens before the rest has started
    assert "0 loaded units" in box.machine.ask("systemctl --failed --no-pager | cat")

    def processes() -> str:
        return box.machine.ask("ps axo user:20,args | grep -E 'postern(d|-web|-worker|-system)' | grep -v grep")

    def all_run() -> bool:
        users = processes()
        return all(
            user in users for user in ("postern ", "postern-portal", "postern-admin-web", "postern-worker", "root")
        )

    # The worker takes only time that nobody else wants.
    assert wait_for(all_run, timeout_s=BOOT_LIMIT_S, every_s=2), processes()
    users = processes()
    asked = ["curl", "-ksS", "-o", "/dev/null", "-w", "%{http_code}", f"https://{UPLINK4}:8443/"]

    def administration_answers() -> bool:
        return box.lab.run(box.lab.internet, asked, check=False).stdout in ("200", "302", "303")

    assert wait_for(administration_answers, timeout_s=BOOT_LIMIT_S, every_s=2)
    status = box.postern("status")
    assert (status["device"]["board"], status["device"]["slot"]) == (BOARD, "a")
    free = box.machine.ask("free -m | awk '/^Mem:/ { print \"used\", $3 }'")
    used = int(next(line for line in free.splitlines() if line.startswith("used")).split()[1])
    assert used <= MEMORY_LIMIT_MB, f"{used} MB of memory are in use:\n{users}"
    return f"all units run, {used} MB of memory in use"


def a_guest_logs_in_by_voucher(box: Appliance) -> str:
    """A guest behind the second card gets an address, is redirected, logs in by voucher, and reaches the Internet."""
    code = str(box.postern("vouchers", "create", "1")["codes"][0])
    guest = box.lab.guest
    box.guests.lease(guest)
    assert "10.41.0.1:3990" in box.guests.curl(guest, "http://203.0.113.80/").location
    page = box.guests.curl(guest, "http://10.41.0.1:3990/?u=http://203.0.113.80/")
    fields = [("method", "voucher"), ("code", code), ("token", page.field("token"))]
    box.guests.post_form(guest, "http://10.41.0.1:3990/login", fields)
    assert wait_for(lambda: box.guests.passes(guest), timeout_s=30, every_s=1)
    return code


def serve(box: Appliance, directory: Path) -> None:
    """A web server in the Internet that has the bundles."""
    box.lab.popen(
        box.lab.internet,
        [sys.executable, "-m", "http.server", "8000", "--bind", str(INTERNET4), "--directory", str(directory)],
        stdout=None,
    )
    assert wait_for(lambda: ":8000" in box.lab.run(box.lab.internet, ["ss", "-Hltn"]).stdout, timeout_s=10)


def upgrade(box: Appliance, bundle: Path) -> str:
    """Fetch a bundle on the device and ask for it; returns what was said, before the device starts anew."""
    url = f"http://{INTERNET4}:8000/{bundle.name}"
    box.machine.ask(f"busybox wget -q -O {PLACE} {url}", 300)
    box.machine.forget()
    box.machine.type(f"postern upgrade {PLACE}")
    said = box.machine.wait_for(r"(?:postern: |version ).*\n", 900)[0]
    if "slot" in said:
        # The prompt of the old system is on the console still: the new one is waited for from here.
        box.machine.wait_for(box.machine.power_on, BOOT_LIMIT_S)
        box.machine.forget()
    else:
        box.machine.ask(f"rm -f {PLACE}")
    return said


def power_is_cut_during_a_write(box: Appliance) -> None:
    """The plug is pulled while the data partition is being written and a session is online."""
    box.machine.type(
        "while :; do dd if=/dev/urandom of=/var/lib/postern/upgrade/noise bs=64k count=64 conv=fsync; done"
    )
    time.sleep(3)
    box.restart_after_power_cut()
    box.wait_until_open()
    assert wait_for(lambda: box.guests.passes(box.lab.guest), timeout_s=60, every_s=2)


def story(box: Appliance) -> tuple[str, str, str, str]:
    """Build, slot, kind of start and the state of the last upgrade."""
    status = box.postern("status")
    device = status["device"]
    return status["build_id"], device["slot"], device["start"], (device["upgrade"] or {}).get("state", "")


def fell_back(box: Appliance) -> bool:
    """Whether the second start has come to its prompt; the first one's begin was taken note of by `upgrade`."""
    box.machine.listen()
    second = box.machine.log.rfind(box.machine.power_on)
    return second >= 0 and box.machine.log.rfind("operator@postern-") > second


def test_bundles_are_what_images_are_made_of(built: Built) -> None:
    """Bytecode in an image is trusted without a look at times; nothing secret and no scapy is in it."""
    stale = [path for path in built.root.rglob("*.pyc") if path.read_bytes()[4:8] != b"\1\0\0\0"]
    assert stale == []
    assert (built.root / "etc/machine-id").read_text() == ""
    assert not list(built.root.rglob("*host_key*"))
    assert not list((built.root / "usr/lib").rglob("scapy"))
    shadow = (built.root / "etc/shadow").read_text()
    assert all(line.split(":")[1] in ("*", "!", "!*", "!!") for line in shadow.splitlines())
