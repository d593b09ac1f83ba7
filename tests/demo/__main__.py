"""The demonstration: a hotspot in three namespaces, and a virtual phone that lives through a whole visit.

    guest's namespace ── bridge ── gateway's (posternd, postern-web) ── Internet's (web, DNS; FreeRADIUS by option)

Every step is one line with what was seen. Without `--once` the hotspot stays up until Ctrl-C, to look around in.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.control.blocking import SyncControlClient
from gateway.system.server import SystemServer
from gateway.system.verbs import VERBS, Place
from tests.browser.administration import Administration
from tests.netns.captures import Captures
from tests.netns.freeradius import FreeRadius, user_entry
from tests.netns.harness import INTERNET4, UPLINK4, Guest, Lab
from tests.netns.hotspot import Hotspot

USER: Final = "alice"
PASSWORD: Final = "wonderland"
SECRET: Final = "demonstration-secret"
DAEMON_USER: Final = "daemon"  # every Debian has it; the daemon gets its few capabilities and no other power
PROBES: Final = (
    ("Android", "http://connectivitycheck.gstatic.com/generate_204"),
    ("iPhone", "http://captive.apple.com/hotspot-detect.html"),
    ("Windows", "http://www.msftconnecttest.com/connecttest.txt"),
    ("Firefox", "http://detectportal.firefox.com/canonical.html"),
)


@dataclass(slots=True)
class Walk:
    """The steps of a visit, and how many did not hold."""

    failed: int = 0
    _coloured: bool = field(default_factory=sys.stdout.isatty)

    def step(self, what: str, seen: Callable[[], tuple[bool, str]]) -> None:
        """Do one step and print what was seen; a step that raises has failed."""
        try:
            held, words = seen()
        except (AssertionError, OSError) as error:
            held, words = False, str(error).strip().splitlines()[0]
        mark = "ok  " if held else "FAIL"
        if self._coloured:
            mark = f"\x1b[{'32' if held else '1;31'}m{mark}\x1b[0m"
        print(f"{mark} {what:<34} {words}", flush=True)
        self.failed += not held


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 when every step held."""
    parser = argparse.ArgumentParser(prog="./build.sh demo", description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="tear everything down afterwards instead of staying up")
    parser.add_argument("--radius", action="store_true", help="check passwords with a FreeRADIUS that is started here")
    arguments = parser.parse_args(argv)
    # Ended by a signal we still leave nothing behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            lab = stack.enter_context(Lab("demo"))
            lab.start_internet()
            hotspot = _hotspot(stack, lab, radius=arguments.radius)
            print(f"hotspot up after {time.monotonic() - began:.1f} s: guest, gateway and Internet in namespaces\n")
            walk = Walk()
            captures = stack.enter_context(Captures(hotspot))
            # In this machine's own namespace: a browser here finds it on loopback, and guests find nothing.
            administration = stack.enter_context(Administration(hotspot, options=("--spool", str(captures.spool))))
            stack.enter_context(_system(hotspot))
            _visit(walk, hotspot, lab.guest, captures, administration)
            print(f"\n{'all steps held' if not walk.failed else f'{walk.failed} steps did not hold'}")
            if walk.failed and os.environ.get("POSTERN_KEEP_LOGS"):
                print(hotspot.log())
            if not arguments.once:
                _stay(hotspot, lab, administration)
            return 1 if walk.failed else 0
    except KeyboardInterrupt:
        return 130


def _hotspot(stack: ExitStack, lab: Lab, *, radius: bool) -> Hotspot:
    """The gateway, with a local user or with a RADIUS server in the Internet's namespace."""
    methods = "\tlist method 'password'\n\tlist method 'voucher'\n"
    zone = f"\toption title 'Welcome to the demonstration'\n{methods}"
    if not radius:
        hotspot = stack.enter_context(Hotspot(lab, zone_options=zone, user=DAEMON_USER))
        hotspot.add_user(USER, PASSWORD, "--session-time", "1h")
        return hotspot
    workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postern-radius-")))
    users = user_entry(USER, PASSWORD, "Session-Timeout := 3600", "Class := 0x64656d6f")
    stack.enter_context(FreeRadius(workdir, users, {str(UPLINK4): SECRET}, namespace=lab.internet))
    section = f"config radius_server 'freeradius'\n\toption address '{INTERNET4}'\n\toption secret '{SECRET}'\n"
    return stack.enter_context(Hotspot(lab, zone_options=zone, sections=section, user=DAEMON_USER))


@contextmanager
def _system(hotspot: Hotspot) -> Iterator[None]:
    """What postern-system does for the pages, but for what would change this machine: its clock's zone, a restart."""
    root = hotspot.directory / "system"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "share").mkdir(parents=True)
    (root / "usr" / "share" / "zoneinfo").symlink_to("/usr/share/zoneinfo")
    place = Place(hotspot.config_path, root, hotspot.socket.parent, hotspot.directory / "admin-web")
    verbs = {name: VERBS[name] for name in ("write_config", "timezone", "read_certificate", "write_certificate")}
    server = SystemServer(hotspot.socket.with_name("system.sock"), DAEMON_USER, place, verbs)
    server.bind()
    stopped = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stopped.is_set,), name="postern-system")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        server.close()


def _visit(walk: Walk, hotspot: Hotspot, guest: Guest, captures: Captures, administration: Administration) -> None:
    """The life of a phone, from its first DHCP packet to the door that is shut again."""
    portal = hotspot.portal
    recordings: list[str] = []
    codes: list[str] = []

    def lease() -> tuple[bool, str]:
        address = hotspot.lease(guest)
        return True, f"dhclient got {address}"

    def record() -> tuple[bool, str]:
        with SyncControlClient(hotspot.socket) as daemon:
            started = daemon.call("captures.record", {"client": str(guest.mac), "seconds": 600})
        assert isinstance(started, dict)
        recordings.append(str(started["id"]))
        return started["status"] == "recording", f"on {started['interface']}, {started['filter']}"

    def analysed() -> tuple[bool, str]:
        with SyncControlClient(hotspot.socket) as daemon:
            daemon.call("captures.stop", {"id": recordings[0]})
        state = captures.analysed()
        words = f"{state.packets} packets, {state.findings} finding{'s' * (state.findings != 1)}"
        return state.status == "completed", words

    def probe_redirected(url: str) -> Callable[[], tuple[bool, str]]:
        def look() -> tuple[bool, str]:
            answer = hotspot.curl(guest, url)
            return answer.status == 302 and answer.location.startswith(
                portal
            ), f"{answer.status} to {answer.location[:60]}"

        return look

    def https_refused() -> tuple[bool, str]:
        began = time.monotonic()
        answer = hotspot.curl(guest, "https://203.0.113.80/", "-k")
        waited_ms = (time.monotonic() - began) * 1000
        return answer.exit_code == 7, f"refused at once: {answer.error.partition(') ')[2][:40]}… ({waited_ms:.0f} ms)"

    def page() -> tuple[bool, str]:
        answer = hotspot.curl(guest, f"{portal}/")
        size = len(answer.body.encode())
        return (
            answer.status == 200 and 'type="password"' in answer.body,
            f"{answer.status}, {size} octets, asks for a password",
        )

    def log_in(password: str) -> tuple[int, str, str]:
        token = hotspot.curl(guest, f"{portal}/").field("token")
        fields = [("method", "password"), ("token", token), ("username", USER), ("password", password)]
        answer = hotspot.post_form(guest, f"{portal}/login", fields)
        return answer.status, answer.location, answer.body

    def wrong() -> tuple[bool, str]:
        status, _, body = log_in("looking-glass")
        message = body.partition('role="alert"')[2].partition(">")[2].partition("</p>")[0]
        text = html.unescape(" ".join(re.sub(r"<[^>]*>", " ", message).split()))
        return status == 200 and bool(text), f"stays on the page: {text}"

    def right() -> tuple[bool, str]:
        status, location, _ = log_in(PASSWORD)
        return status == 303 and "/status" in location, f"{status} to {location}"

    def online() -> tuple[bool, str]:
        answer = hotspot.curl(guest, PROBES[0][1])
        return answer.status == 204, f"{answer.status} from the Internet itself"

    def download() -> tuple[bool, str]:
        answer = hotspot.curl(guest, "http://203.0.113.80/bytes/3000000", "-o", "/dev/null", "-w", "%{size_download}")
        used = int(hotspot.session(guest)["download_bytes"])
        return answer.exit_code == 0 and used >= 3_000_000, f"3000000 octets fetched, {used} counted"

    def status() -> tuple[bool, str]:
        answer = hotspot.curl(guest, f"{portal}/status")
        return answer.status == 200 and USER in answer.body, f"{answer.status}, shows {USER} and what is left"

    def log_out() -> tuple[bool, str]:
        token = hotspot.curl(guest, f"{portal}/status").field("token")
        answer = hotspot.post_form(guest, f"{portal}/logout", [("token", token)])
        return answer.status == 303, f"{answer.status} to {answer.location}"

    def voucher() -> tuple[bool, str]:
        codes.extend(hotspot.postern("vouchers", "create", "3", "--valid-for", "7d", "--total", "2G").stdout.split())
        token = hotspot.curl(guest, f"{portal}/").field("token")
        fields = [("method", "voucher"), ("token", token), ("code", codes[0].replace("-", " "))]
        answer = hotspot.post_form(guest, f"{portal}/login", fields)
        page = hotspot.curl(guest, f"{portal}/status")
        return answer.status == 303 and "Data left" in page.body, f"{codes[0]} of 3 lets in, and shows what is left"

    def revoke() -> tuple[bool, str]:
        done = hotspot.postern("vouchers", "revoke", "1-1", "--end-sessions").stdout.strip()
        return "ended 1 session" in done and hotspot.curl(
            guest, PROBES[0][1]
        ).status == 302, f"{done}; back at the door"

    def events() -> tuple[bool, str]:
        rows = hotspot.ask("events", "--client", str(guest.mac))["rows"]
        kinds = [row["kind"] for row in rows]
        return (
            "gate_opened" in kinds and "gate_closed" in kinds,
            f"{len(kinds)} events: {', '.join(dict.fromkeys(kinds))}",
        )

    walk.step("the phone asks for an address", lease)
    walk.step("its packets are recorded", record)
    for name, url in PROBES:
        walk.step(f"{name} probes for the Internet", probe_redirected(url))
    walk.step("HTTPS to the Internet", https_refused)
    walk.step("the login page", page)
    walk.step("a wrong password", wrong)
    walk.step("the right password", right)
    walk.step("the probe again", online)
    walk.step("a download is counted", download)
    walk.step("the status page", status)
    walk.step("logout", log_out)
    walk.step("the probe is redirected again", probe_redirected(PROBES[0][1]))
    walk.step("HTTPS is refused again", https_refused)
    walk.step("a voucher from the printer", voucher)
    walk.step("the voucher is revoked", revoke)

    def pages() -> tuple[bool, str]:
        command = ["curl", "-skL", "--max-time", "10", f"{administration.origin}/"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "Set up this gateway" in done.stdout, f"{administration.origin} asks for the setup code"

    walk.step("the administration's pages", pages)
    walk.step("the timeline has it all", events)
    walk.step("the recording is analysed", analysed)


def _stay(hotspot: Hotspot, lab: Lab, administration: Administration) -> None:
    """Say how to look around and wait for Ctrl-C."""
    enter = f"sudo ip netns exec {lab.guest.netns}"
    spare = hotspot.ask("vouchers", "list", "--state", "unused")["rows"][0]["code"]
    print(f"""
The hotspot stays up; Ctrl-C ends it. To look around:

  {administration.origin}/          the administration's pages; the certificate was made just now
  setup code {administration.setup_code()}      asked for once; the phone's capture is there

In another terminal in this folder:

  sudo .venv/bin/python -m gateway.cli --socket {hotspot.socket} status
  sudo .venv/bin/python -m gateway.cli --socket {hotspot.socket} events --follow
  {enter} curl -i http://example.com/          (redirected to the portal)
  {enter} curl {hotspot.portal}/                the portal; log in as {USER}, password {PASSWORD}
  {" " * len(enter)} {" " * len(f"curl {hotspot.portal}/")}                or with the voucher {spare}
""")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("\nended")


if __name__ == "__main__":
    sys.exit(main())
