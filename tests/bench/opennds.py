"""openNDS as a peer of the portal: Debian's package, in a laboratory of its own.

It runs on the gateway's bridge with its firewall (iptables) in the gateway's namespace, and answers redirected port 80
with a redirect to its own pages. It believes only clients that a dnsmasq lease file names, and edits /etc/dnsmasq.conf
and /etc/hosts: so it gets a /etc, /run and /tmp that are copies in a mount namespace of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.netns.harness import WEB4, Lab

PORT: Final = 2050
_START_LIMIT_S: Final = 30.0
# The copies go over the real directories in the mount namespace that `ip netns exec` has made.
_START: Final = """\
set -e
mkdir {work}/etc {work}/tmp {work}/run
cp -a /etc/. {work}/etc/
echo "{expiry} {mac} {address} guest *" >{work}/tmp/dhcp.leases
mount --bind {work}/etc /etc
mount --bind {work}/run /run
mkdir -p /run/tmpfiles.d
mount --bind {work}/tmp /tmp
printf '{config}' >/etc/opennds/bench.conf
exec opennds -f -d 0 -c /etc/opennds/bench.conf
"""
_CONFIG: Final = r"GatewayInterface br-guest\nMaxClients 250\nuse_outdated_mhd 1\n"


class Unavailable(Exception):
    """openNDS cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running openNDS."""

    lab: Lab
    pid: int
    status: int  # of its answer to a probe

    @property
    def gateway(self) -> str:
        """The namespace that it runs in."""
        return self.lab.gateway

    @property
    def target(self) -> tuple[str, int]:
        """What a phone's probe asks."""
        return (str(WEB4), 80)

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Be in the guest's namespace."""
        return self.lab.inside(self.lab.guest.netns)


@contextlib.contextmanager
def running() -> Iterator[Peer]:
    """Start openNDS and wait until it answers a guest's probe; raises Unavailable."""
    if shutil.which("opennds") is None or shutil.which("iptables") is None:
        raise Unavailable("not installed: apt-get install opennds iptables")
    with Lab("bench-nds", static=True, plain=True) as lab, tempfile.TemporaryDirectory() as name:
        lab.start_internet()
        work = Path(name)
        guest = lab.guest
        script = _START.format(
            work=work, expiry=int(time.time()) + 86400, mac=guest.mac, address=guest.address, config=_CONFIG
        )
        # Its shell scripts complain at length about a system without systemd.
        child = lab.popen(lab.gateway, ["sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_LIMIT_S
        seen = ""
        while time.monotonic() < deadline and child.poll() is None:
            words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "--max-time", "3"]
            seen = lab.run(guest.netns, [*words, f"http://{WEB4}/generate_204"], check=False).stdout
            if seen.startswith(("30", "511", "200 ")):
                yield Peer(lab, child.pid, int(seen[:3]))
                return
            time.sleep(0.5)
        raise Unavailable(f"it did not answer a probe with a redirect (last answer: {seen or 'none'})")
