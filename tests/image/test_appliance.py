"""The image as whoever flashed it meets it: it boots, guests get in, it survives power cuts, upgrades and resets."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.image.order import priorities
from tests.image.appliance import BOOT_LIMIT_S, Appliance, appliance
from tests.image.conftest import BOARD, Built, flipped
from tests.netns.harness import INTERNET4, UPLINK4, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

MEMORY_LIMIT_MB = 190
PLACE = "/var/lib/postern/upgrade/new"
WRITTEN_BYTES = 30_000_000  # of a slot, when the plug is pulled


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print at once: whoever waits for an emulated machine wants to see that it goes on."""

    def print_now(text: str) -> None:
        with capsys.disabled():
            print(f"\n  image: {text}", end="", flush=True)

    return print_now


def test_from_the_first_start_to_a_factory_reset(built: Built, say: Callable[[str], None]) -> None:
    """One machine goes through all of it in order, because each start is a minute of emulation."""
    newer = built.bundle("newer")
    failing = [built.bundle("failing", without="etc/systemd/system/multi-user.target.wants/postern-portal.service")]
    if "POSTERN_BOARD" in os.environ:
        failing.append(built.bundle("panicking", without="usr/sbin/init"))
    with appliance(built.disk, BOARD) as box:
        say(f"gate open after {box.wait_until_open():.0f} s")
        say(nothing_has_failed(box))
        a_guest_logs_in_by_voucher(box)
        say("a guest has logged in by voucher")
        made_here = what_the_device_made(box)
        serve(box, built.directory)

        assert "damaged" in upgrade(box, flipped(newer))
        assert box.postern("status")["device"]["upgrade"] is None
        say("a bundle with one flipped bit is refused, and nothing was written")

        power_is_cut_while_a_slot_is_written(box, newer)
        say(f"gate open again {box.wait_until_open():.0f} s after a power cut during a write")
        assert wait_for(lambda: box.guests.passes(box.guest), timeout_s=60, every_s=2)
        assert what_the_device_made(box) == made_here
        assert story(box)[1:] == ("a", "good", "interrupted")

        assert "slot b" in upgrade(box, newer)
        say(f"gate of the newer build open after {box.wait_until_open():.0f} s")
        assert wait_for(lambda: story(box) == ("newer", "b", "trial", "committed"), timeout_s=900, every_s=5), story(
            box
        )
        assert box.guests.passes(box.guest)
        assert what_the_device_made(box) == made_here
        assert box.postern("vouchers", "list")["rows"][0]["state"] != "unused"
        say("it has proved itself and stays; sessions and vouchers came along")

        for bundle in failing:
            assert "slot a" in upgrade(box, bundle)
            box.machine.restarted(BOOT_LIMIT_S)  # it is tried, and gives up
            box.wait_until_open()
            assert story(box) == ("newer", "b", "good", "rolled back")
            say(f"{bundle.stem}: the version before is back by itself")

        name = box.machine.ask("hostname").split()[-1]
        box.machine.type(f"postern factory-reset --confirm {name}")
        box.machine.restarted(BOOT_LIMIT_S)
        box.lab.add_guest()
        box.wait_until_open()
        assert box.machine.ask("hostname").split()[-1] == name
        assert not set(what_the_device_made(box)) & set(made_here)
        assert box.postern("vouchers", "list")["rows"] == []
        say("a factory reset leads back to the first set-up")


def what_the_device_made(box: Appliance) -> list[str]:
    """What no image holds and each device makes: its machine id and its setup code."""
    said = box.machine.ask("cat /etc/machine-id; postern setup-code")
    found = sorted(set(re.findall(r"\b(?:[0-9a-f]{32}|[A-Z0-9]{4}(?:-[A-Z0-9]{4}){2,})\b", said)))
    assert len(found) == 2, said
    return found


def nothing_has_failed(box: Appliance) -> str:
    """No unit has failed, each process has its own user, the administration answers, memory is within its limit."""
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
    """A guest behind the second card is redirected, logs in by voucher, and reaches the Internet."""
    code = str(box.postern("vouchers", "create", "1")["codes"][0])
    guest = box.guest
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


def fetch(box: Appliance, bundle: Path) -> None:
    """Have the device download a bundle to where it looks for one."""
    box.machine.ask(f"busybox wget -q -O {PLACE} http://{INTERNET4}:8000/{bundle.name}", 300)


def upgrade(box: Appliance, bundle: Path) -> str:
    """Fetch a bundle on the device and ask for it; returns what was said. The device has started anew if it took it."""
    fetch(box, bundle)
    box.machine.forget()
    box.machine.type(f"postern upgrade {PLACE}")
    said = box.machine.wait_for(r"(?:postern: |version ).*\n", BOOT_LIMIT_S)[0]
    if "slot" in said:
        box.machine.restarted(BOOT_LIMIT_S)
    else:
        box.machine.ask(f"rm -f {PLACE}")
    return said


def power_is_cut_while_a_slot_is_written(box: Appliance, bundle: Path) -> None:
    """The plug is pulled when an upgrade has written a part of its slot, with a session online."""
    fetch(box, bundle)
    box.machine.ask("sync")
    # The bundle is copied to where postern-system takes it from, and then written into the slot.
    enough = box.disk_bytes() + bundle.stat().st_size + WRITTEN_BYTES
    box.machine.type(f"postern upgrade {PLACE}")
    assert wait_for(lambda: box.disk_bytes() > enough, timeout_s=BOOT_LIMIT_S)
    box.restart_after_power_cut()


def story(box: Appliance) -> tuple[str, str, str, str]:
    """Build, slot, kind of start and the state of the last upgrade."""
    status = box.postern("status")
    device = status["device"]
    return status["build_id"], device["slot"], device["start"], (device["upgrade"] or {}).get("state", "")


def test_bundles_are_what_images_are_made_of(built: Built) -> None:
    """Bytecode in an image is trusted without a look at times; nothing secret and no scapy is in it."""
    stale = [path for path in built.root.rglob("*.pyc") if path.read_bytes()[4:8] != b"\1\0\0\0"]
    assert stale == []
    assert (built.root / "etc/machine-id").read_text() == ""
    assert not list(built.root.rglob("*host_key*"))
    assert not list((built.root / "usr/lib").rglob("scapy"))
    shadow = (built.root / "etc/shadow").read_text()
    assert all(line.split(":")[1] in ("*", "!", "!*", "!!") for line in shadow.splitlines())


def test_modules_carry_nothing_that_only_costs_time(built: Built) -> None:
    """A kernel module of an image has neither a seal, which nobody asks for, nor types for tracing."""
    modules = list((built.root / "usr/lib/modules" / built.kernel_version).rglob("*.ko"))
    assert len(modules) > 100
    for path in modules:
        data = path.read_bytes()
        assert b"~Module signature appended~" not in data
        assert b"\0.BTF\0" not in data


def test_what_a_start_reads_lies_together(built: Built) -> None:
    """The files that Python reads are packed in the order in which the processes read them, the gate's first."""
    lines = [line.rsplit(" ", 1) for line in priorities(built.root).splitlines()]
    ranks = {path: int(rank) for path, rank in lines}
    assert len(ranks) == len(lines) > 400
    assert list(ranks.values()) == sorted(ranks.values(), reverse=True)
    assert -32768 <= min(ranks.values()) <= max(ranks.values()) <= 32767  # what mksquashfs takes
    assert all((built.root / path).is_file() for path in ranks)
    gateway, portal, admin = (
        ranks[f"usr/lib/postern/{name}.cpython-311.pyc"]
        for name in (
            "gateway/__pycache__/daemon",
            "webui/portal/__pycache__/service",
            "webui/admin/__pycache__/service",
        )
    )
    assert gateway > portal > admin
    assert any(path.startswith("usr/lib/python3.11/lib-dynload/") for path in ranks)
