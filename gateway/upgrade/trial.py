"""postern-trial: proves that a new version works, and only then keeps it.

Run once, at a trial start. A client of our own is put on the first guest network: it must get an address and meet the
login page. Whatever fails leaves the boot loader's memory as it is, so the next start takes the version before.
"""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from gateway.config_loader import ConfigError, load
from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import ControlError
from gateway.upgrade import slots, writing
from gateway.upgrade.story import Story, tell, told

LIMIT_S: Final = 240.0  # for each check; a slow card and a first start take their time
CONFIG: Final = Path("/etc/config/postern")
SERVICES: Final = ("posternd", "postern-system", "postern-portal", "postern-admin-web")
_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_NETNS: Final = "postern-trial"
# Prints the first line of the answer. Not busybox' wget, which is linked statically and ends with SIGSEGV where the
# system's name service is not the one that it was built with.
_BROWSER: Final = """\
import socket
with socket.create_connection(("192.0.2.1", 80), 10) as place:
    place.settimeout(10)
    place.sendall(b"GET / HTTP/1.1\\r\\nHost: 192.0.2.1\\r\\nConnection: close\\r\\n\\r\\n")
    print(place.makefile().readline())
"""
T = TypeVar("T")
_LOG: Final = logging.getLogger("postern-trial")
# udhcpc calls it with the lease in its environment.
_LEASE_SCRIPT: Final = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
"""


class Unproved(Exception):
    """Something does not work; the message says what."""


def main() -> int:
    """Prove and commit, or say why not; returns the exit code, on which the service starts the system anew."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    here = slots.here()
    story = told(here.data) or Story("trial", "?", "?", here.running)
    try:
        prove(here)
    except Unproved as error:
        _LOG.error("the new version does not work: %s", error)
        tell(here.data, Story("trial", story.version, story.build_id, story.slot, str(error)))
        return 1
    writing.commit(here)
    tell(here.data, Story("committed", story.version, story.build_id, here.running))
    _LOG.info("the new version works and stays")
    return 0


def prove(here: slots.Slots) -> None:
    """Every check in turn; raises Unproved."""
    _data_is_writable(here.data)
    try:
        config = load(CONFIG.read_text(encoding="utf-8"), str(CONFIG), lenient=True).config
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise Unproved(f"the configuration cannot be read: {error}") from error
    if not config.general.enabled:
        return  # switched off: nothing runs that could be looked at
    _services_were_started()
    zone = _until(_zone, "posternd does not answer at the control socket")
    portal = f"http://{zone['address'].split('/')[0]}:{config.uam.port}/"
    _until(lambda: _answers(portal), "the portal does not answer")
    if config.admin.enabled:
        # The kernel lets nobody on the device itself reach a page that is bound to another interface.
        address = f"https://127.0.0.1:{config.admin.port}/"
        if "lo" in config.admin.interfaces:
            _until(lambda: _answers(address), "the administration pages do not answer")
        else:
            _until(lambda: _listens(config.admin.port), "the administration pages do not answer")
    _until(lambda: _a_client_meets_the_login_page(zone["interface"]), "a client does not get to the login page")


def _services_were_started() -> None:
    """Each is started before this proof begins, so one that is down by now does not come: nobody needs to wait."""
    for name in SERVICES:
        command = ["systemctl", "show", "--property=ActiveState", "--value", f"{name}.service"]
        state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if state in ("inactive", "failed"):
            raise Unproved(f"{name} is {state}: its log says why (journalctl --unit {name})")


def _until(check: Callable[[], T], failure: str) -> T:
    ends = time.monotonic() + LIMIT_S
    while True:
        try:
            return check()
        except (OSError, ControlError, Unproved, subprocess.SubprocessError) as error:
            if time.monotonic() > ends:
                raise Unproved(f"{failure}: {error}") from error
        time.sleep(1)


def _data_is_writable(data: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(b"proof")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unproved(f"the data partition cannot be written: {error.strerror}") from error


def _zone() -> dict[str, str]:
    """The first guest network's interface and address."""
    with SyncControlClient() as daemon:
        status = daemon.call("status", timeout_s=5)
        problems = daemon.call("config.check", timeout_s=10)
    if problems.get("problems") if isinstance(problems, dict) else True:
        raise Unproved(f"the configuration has problems: {problems}")
    zones = status.get("zones") if isinstance(status, dict) else None
    if not isinstance(zones, list) or not zones or not isinstance(zones[0], dict):
        raise Unproved("there is no guest network")
    return {"interface": str(zones[0]["interface"]), "address": str(zones[0]["address"])}


def _answers(url: str) -> None:
    """Any answer of HTTP will do; its certificate is the device's own."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=10, context=trusting) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise Unproved(f"{url} answers {error.code}") from error


def _listens(port: int) -> None:
    """Whether any socket waits for connections at a TCP port."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                return
    raise Unproved(f"nothing listens at port {port}")


def _a_client_meets_the_login_page(bridge: str) -> None:
    with _client_on(bridge) as inside, tempfile.TemporaryDirectory() as name:
        script = Path(name) / "lease"
        script.write_text(_LEASE_SCRIPT, encoding="ascii")
        script.chmod(0o755)
        inside("busybox", "udhcpc", "-i", "guest", "-n", "-q", "-t", "5", "-T", "2", "-s", str(script))
        # Where the client wants to go does not matter: it is not let through.
        said = inside(sys.executable, "-I", "-c", _BROWSER, check=False)
        if " 302 " not in said:
            raise Unproved(f"a client without a login is not redirected: {said.strip()[-200:]}")


@contextmanager
def _client_on(bridge: str) -> Iterator[Callable[..., str]]:
    """A namespace with one end of a cable in the bridge; yields what runs a program inside it."""

    def run(*command: str, check: bool = True) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise Unproved(f"{command[0]} {command[1]}: {(done.stderr or done.stdout).strip()[-200:]}")
        return done.stdout + done.stderr

    def inside(*command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", _NETNS, *command, check=check)

    run("ip", "netns", "delete", _NETNS, check=False)
    run("ip", "netns", "add", _NETNS)
    try:
        run("ip", "link", "add", "trial0", "type", "veth", "peer", "name", "guest", "netns", _NETNS)
        run("ip", "link", "set", "trial0", "master", bridge, "up")
        inside("ip", "link", "set", "guest", "up")
        yield inside
    finally:
        run("ip", "netns", "delete", _NETNS, check=False)
        run("ip", "link", "delete", "trial0", check=False)


if __name__ == "__main__":
    sys.exit(main())
