"""An image in a virtual machine whose two cards lead into a laboratory: an Internet on one, real guests on the other.

guest ── br-guest ── vm1 [virtual machine] vm0 ── br-uplink ── wan0 ── internet
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootfs.dist import CACHE
from rootfs.image.qemu import Machine, overlay
from tests.netns.harness import INTERNET4, RESOLVER4, UPLINK, UPLINK4, Guest, Lab, wait_for
from tests.netns.hotspot import Hotspot

# Emulation on two shared cores, of another architecture perhaps; twenty times what an idle machine takes.
BOOT_LIMIT_S = 900.0
UDHCPC_SCRIPT = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
ip route replace default via "$router"
"""


@dataclass(slots=True)
class Appliance:
    """A running virtual machine and what is around it."""

    lab: Lab
    machine: Machine
    guests: Hotspot  # for what guests do; it has no processes of its own here
    directory: Path

    @property
    def guest(self) -> Guest:
        """Who came last."""
        return self.lab.guests[-1]

    def wait_until_open(self) -> float:
        """Wait until the guest has an address and the portal answers; returns the seconds from power on until then.

        It is looked at from outside: a question at the console takes the emulated machine seconds that it needs.
        """
        for condition in (self._has_address, self._portal_answers):
            assert wait_for(condition, timeout_s=BOOT_LIMIT_S, every_s=0.1), self.state()
        took_s = time.monotonic() - self.machine.started
        self.machine.wait_for(r"operator@postern-[0-9a-f]+:~", BOOT_LIMIT_S)
        # The gate opens before the rest has started, which speaks into what the console answers meanwhile.
        self.machine.ask("systemctl is-system-running --wait", BOOT_LIMIT_S)
        return took_s

    def state(self) -> str:
        """What somebody who looks for the reason wants to see."""
        looks = (
            "timeout 60 postern status; systemctl --failed --no-pager; systemctl list-jobs --no-pager; ip -br address; "
            "ps axo pid,stat,wchan:20,time,args | grep -v ']$'; journalctl -b -o short-monotonic --no-pager | tail -60"
        )
        return self.machine.ask(looks, 200)

    def _has_address(self) -> bool:
        """Whether the guest has an address by now; asks for one twice, a second apart."""
        self.machine.listen()  # a console that nobody reads makes the machine wait
        script = self.directory / "udhcpc-script"
        script.write_text(UDHCPC_SCRIPT)
        script.chmod(0o755)
        if self.guests.address(self.guest) is None:
            asked = ["udhcpc", "-i", "eth0", "-n", "-q", "-t", "2", "-T", "1", "-A", "0", "-s", str(script)]
            self.lab.run(self.guest.netns, asked, check=False)
        self.guest.address = self.guests.address(self.guest)
        return self.guest.address is not None

    def _portal_answers(self) -> bool:
        self.machine.listen()
        return self.guests.curl(self.guest, "http://10.41.0.1:3990/", limit_s=5).status in (200, 302, 303)

    def postern(self, *words: str, timeout_s: float = 120) -> Any:
        """The JSON answer of a `postern` command at the console; Any, because each command has its own shape."""
        said = self.machine.ask(f"postern {' '.join(words)} --json", timeout_s)
        found = re.search(r"[\[{].*[\]}]", said, re.DOTALL)
        assert found, said
        return json.loads(found[0])

    def disk_bytes(self) -> int:
        """How much the machine has written to its disk's file."""
        self.machine.listen()
        return self.machine.disk.stat().st_blocks * 512

    def restart_after_power_cut(self) -> None:
        """Pull the plug and switch on again."""
        self.machine.pull_the_plug()
        self.machine.start()


@contextmanager
def appliance(image: Path, board: str) -> Iterator[Appliance]:
    """Boot a board's image in a laboratory; yields as soon as it is switched on."""
    with tempfile.TemporaryDirectory(prefix="postern-image-") as name, Lab("image") as lab:
        directory = Path(name)
        directory.chmod(0o755)
        disk = directory / "disk.qcow2"
        overlay(image, disk)
        _connect(lab)
        lab.start_internet()
        _serve_addresses(lab, directory)
        network = []
        for number in (0, 1):
            network += ["-netdev", f"tap,id=n{number},ifname=vm{number},script=no,downscript=no"]
            network += ["-device", f"virtio-net-pci,netdev=n{number},romfile=,mac=52:54:00:41:00:0{number}"]
        guests = Hotspot(lab)
        guests.directory = directory
        # Kept: what an emulated machine said is all there is to find out why it stopped.
        transcript = (CACHE / f"console-{board}.log").open("w", encoding="utf-8")
        machine = Machine(board, disk, network, ["ip", "netns", "exec", lab.gateway], transcript)
        with transcript, machine:
            yield Appliance(lab, machine, guests, directory)


def _connect(lab: Lab) -> None:
    """The laboratory's gateway is only cables here: the machine's cards are in its bridges."""
    lines = [
        f"address flush dev {UPLINK}",
        "link add br-uplink type bridge forward_delay 0 mcast_snooping 0",
        f"link set {UPLINK} master br-uplink",
        "link set br-uplink up",
        "tuntap add dev vm0 mode tap",
        "tuntap add dev vm1 mode tap",
        "link set vm0 master br-uplink up",
        "link set vm1 master br-guest up",
    ]
    subprocess.run(["ip", "-n", lab.gateway, "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _serve_addresses(lab: Lab, directory: Path) -> None:
    """The Internet provider's DHCP server."""
    options = [
        *("--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces"),
        f"--dhcp-range={UPLINK4},{UPLINK4},255.255.255.0,1h",
        f"--dhcp-option=option:router,{INTERNET4}",
        f"--dhcp-option=option:dns-server,{RESOLVER4}",
        f"--dhcp-leasefile={directory}/provider.leases",
        f"--pid-file={directory}/provider.pid",
        "--user=root",
    ]
    log = (directory / "provider.log").open("w")
    with log:
        lab.popen(lab.internet, ["dnsmasq", *options], stdout=log, stderr=log)
