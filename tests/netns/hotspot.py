"""A whole hotspot in a laboratory: the real posternd and postern-web in the gateway's namespace.

`Hotspot` is a context manager over a `Lab`. Its state, its control socket and the logs of its processes lie in a
directory of its own. The processes are killed, stopped and started again as tests want; the lab outlives them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import ControlError
from gateway.hub import LEASE, SESSION
from gateway.journal import encode, replay
from tests.netns.harness import RESOLVER4, UPLINK, Guest, Lab, wait_for

WEB_USER: Final = "nobody"  # on a fresh machine there is no user of ours; the portal needs no power at all
WEB_GROUP: Final = "nogroup"
ADMIN_USER: Final = "sync"  # of the same group, so that it reaches the control socket; every Debian has it
START_LIMIT_S: Final = 30.0
DHCLIENT_SCRIPT: Final = """\
#!/bin/sh
# What dhclient got goes onto the interface; nothing else of the system is touched.
case "$reason" in
  BOUND|RENEW|REBIND|REBOOT)
    ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    [ -z "$new_routers" ] || ip route replace default via "${new_routers%% *}"
    ;;
  EXPIRE|FAIL|RELEASE|STOP)
    ip -4 address flush dev "$interface"
    ;;
esac
"""


@dataclass(slots=True)
class Answer:
    """What curl saw: status, headers, body; status 0 when there was no answer, and then curl's exit code and words."""

    status: int
    headers: dict[str, str]
    body: str
    exit_code: int
    error: str

    @property
    def location(self) -> str:
        """Where a redirect leads."""
        return self.headers.get("location", "")

    def field(self, name: str) -> str:
        """The value of a hidden field of a form in the body."""
        found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', self.body)
        assert found, f"no field {name!r} in:\n{self.body}"
        return found.group(1)


@dataclass(slots=True)
class Hotspot:
    """A running gateway with its portal."""

    lab: Lab
    zone_options: str = ""  # more lines for every `config zone`
    sections: str = ""  # more sections
    log_level: str = "info"
    user: str = ""  # run the daemon as this user, with the four capabilities that it needs and no other
    directory: Path = field(init=False)
    daemon: subprocess.Popen[str] | None = None
    web: subprocess.Popen[str] | None = None

    def __enter__(self) -> Hotspot:
        self.directory = Path(tempfile.mkdtemp(prefix="postern-"))
        self.directory.chmod(0o755)  # the portal's user must reach the control socket
        try:
            self.write_config()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and os.environ.get("POSTERN_KEEP_LOGS"):
            print(self.log())
        self.close()

    def close(self) -> None:
        """Stop both processes and remove the directory."""
        self.stop_web()
        self.stop_daemon()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- processes --------------------------------------------------------------------------------------------------

    @property
    def config_path(self) -> Path:
        """The gateway's configuration file."""
        return self.directory / "postern.conf"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.directory / "run" / "control.sock"

    @property
    def portal(self) -> str:
        """The portal's address in the first zone."""
        return f"http://{self.lab.zones[0].address.ip}:3990"

    def write_config(self, zone_options: str | None = None, sections: str | None = None) -> None:
        """Write the configuration, with other options when given; the daemon does not notice by itself."""
        self.zone_options = self.zone_options if zone_options is None else zone_options
        self.sections = self.sections if sections is None else sections
        zones = "\n".join(
            f"config zone 'guest{zone.index + 1 if zone.index else ''}'\n"
            f"\toption interface '{zone.bridge}'\n\toption address '{zone.address}'\n{self.zone_options}"
            for zone in self.lab.zones
        )
        self.config_path.write_text(
            f"config postern\n\toption state_dir '{self.directory}/state'\n\toption run_dir '{self.directory}/run'\n"
            f"\toption portal_user '{WEB_USER}'\n\toption admin_user '{ADMIN_USER}'\n"
            f"\toption group '{WEB_GROUP}'\n\toption log_level '{self.log_level}'\n"
            f"config network\n\tlist uplink '{UPLINK}'\n"
            f"config dns\n\tlist upstream '{RESOLVER4}'\n"
            f"{zones}\n{self.sections}\n",
            encoding="utf-8",
        )
        self.config_path.chmod(0o644)  # a daemon without root reads it too, whatever the umask

    def start(self) -> None:
        """Start the daemon, then the portal."""
        self.start_daemon()
        self.start_web()

    def start_daemon(self) -> None:
        """Start posternd and wait until it answers; raises AssertionError with its log when it does not."""
        self.spawn_daemon()
        assert wait_for(self._answers, timeout_s=START_LIMIT_S, every_s=0.05), f"posternd did not start:\n{self.log()}"

    def spawn_daemon(self) -> None:
        """Start posternd and go on at once."""
        for name in ("run", "state"):
            folder = self.directory / name
            folder.mkdir(exist_ok=True)
            if self.user:
                shutil.chown(folder, self.user, WEB_GROUP)
        (self.directory / "run").chmod(0o755)
        log = (self.directory / "posternd.log").open("a")
        with log:
            self.daemon = self.lab.popen(
                self.lab.gateway,
                [*self._as_user(), sys.executable, "-m", "gateway", str(self.config_path)],
                stdout=log,
                stderr=log,
            )

    def _as_user(self) -> list[str]:
        """What runs the daemon without root, as its service does."""
        if not self.user:
            return []
        capabilities = "-all,+net_admin,+net_raw,+net_bind_service,+bpf"
        sets = [f"--{kind}={capabilities}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        return ["setpriv", f"--reuid={self.user}", f"--regid={WEB_GROUP}", "--clear-groups", "--no-new-privs", *sets]

    def _answers(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise AssertionError(f"posternd ended with {self.daemon.returncode}:\n{self.log()}")
        return self.is_up()

    def wait_for_portal(self) -> None:
        """Wait until the portal has found a daemon that was started again."""
        line = "connected to the daemon"

        def connected() -> bool:
            text = (self.directory / "postern-web.log").read_text(errors="replace")
            return text.rfind(line) > text.rfind("no daemon") and text.rfind(line) > text.rfind("event stream")

        assert wait_for(connected, timeout_s=START_LIMIT_S), f"the portal did not come back:\n{self.log()}"

    def is_up(self) -> bool:
        """Whether the daemon answers on its control socket."""
        try:
            with SyncControlClient(self.socket) as client:
                client.call("radius.status", {}, timeout_s=5)
        except ControlError:
            return False
        return True

    def start_web(self) -> None:
        """Start the portal and wait until it listens."""
        log = (self.directory / "postern-web.log").open("a")
        with log:
            self.web = self.lab.popen(
                self.lab.gateway,
                [sys.executable, "-m", "webui", "--role", "portal", "--socket", str(self.socket), "--user", WEB_USER],
                stdout=log,
                stderr=log,
            )
        assert wait_for(self._listens, timeout_s=START_LIMIT_S, every_s=0.05), (
            f"the portal did not start:\n{self.log()}"
        )

    def _listens(self) -> bool:
        assert self.web is not None
        if self.web.poll() is not None:
            raise AssertionError(f"postern-web ended with {self.web.returncode}:\n{self.log()}")
        listening = self.lab.run(self.lab.gateway, ["ss", "-Hltn", "sport = :3990"]).stdout
        return listening.count(":3990") >= len(self.lab.zones)

    def stop_daemon(self, number: signal.Signals = signal.SIGTERM, limit_s: float = 15.0) -> int | None:
        """End the daemon with a signal; returns its exit code."""
        return self._end(self.daemon, number, limit_s)

    def stop_web(self, number: signal.Signals = signal.SIGTERM, limit_s: float = 15.0) -> int | None:
        """End the portal with a signal; returns its exit code."""
        return self._end(self.web, number, limit_s)

    def _end(self, child: subprocess.Popen[str] | None, number: signal.Signals, limit_s: float) -> int | None:
        if child is None or child.poll() is not None:
            return None if child is None else child.returncode
        # `ip netns exec` becomes the program itself, so the child's pid is the program's.
        child.send_signal(number)
        try:
            return child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise AssertionError(f"a process did not end within {limit_s} s of {number.name}:\n{self.log()}") from None

    @property
    def journal(self) -> Path:
        """The file in which the daemon keeps what must survive."""
        return self.directory / "state" / "sessions.msgpack"

    def forget_boot(self) -> None:
        """Make a stopped gateway look as after a power cut: nothing in the kernel, the journal of another boot.

        The journal names a boot that is not ours, with times of a clock that stood elsewhere.
        """
        for words in (
            ["nft", "flush", "ruleset"],
            ["sh", "-c", "ip rule flush; ip rule add priority 32766 lookup main; ip -6 rule flush"],
            ["sh", "-c", "ip -6 rule add priority 32766 lookup main; echo 0 >/proc/sys/net/ipv4/ip_forward"],
            ["conntrack", "-F"],
            *(["tc", "qdisc", "del", "dev", zone.bridge, "clsact"] for zone in self.lab.zones),
        ):
            self.lab.run(self.lab.gateway, words, check=False)
        self.rewrite_journal(_of_another_boot)

    def rewrite_journal(self, change: Callable[[str, dict[str, Any]], None]) -> None:
        """Change every saved value, given with its kind, in place; the daemon must be stopped.

        Any: a value is what msgpack carries.
        """
        replayed, _ = replay(self.journal.read_bytes())
        kept = []
        for kind, values in replayed.state.items():
            for key, value in values.items():
                if isinstance(value, dict):
                    change(kind, value)
                kept.append((kind, key, value))
        self.journal.write_bytes(encode(replayed.node, replayed.sequence, 0.0, kept))

    def log(self) -> str:
        """What both processes wrote."""
        texts = [path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log"))]
        return "\n".join(texts)

    # -- the operator -----------------------------------------------------------------------------------------------

    def postern(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the `postern` command."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "--socket", str(self.socket), *words],
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            timeout=60,
        )
        if check and done.returncode:
            raise AssertionError(f"postern {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def ask(self, *words: str) -> Any:
        """The JSON answer of a `postern` command; Any, because each command has its own shape."""
        return json.loads(self.postern(*words, "--json").stdout)

    def call(self, method: str, **params: Any) -> Any:
        """The answer of a control method; Any, because each has its own shape."""
        with SyncControlClient(self.socket) as client:
            return client.call(method, params)

    def add_user(self, name: str, password: str, *options: str) -> None:
        """Make a local account."""
        self.postern("users", "add", name, *options, stdin=f"{password}\n")

    def session(self, guest: Guest) -> dict[str, Any]:
        """What the gateway knows of a guest."""
        shown: dict[str, Any] = self.ask("sessions", "show", str(guest.mac))
        return shown

    def event_texts(self, guest: Guest, kind: str) -> list[str]:
        """What the timeline says of a guest, events of one kind, oldest first."""
        rows = self.ask("events", "--client", str(guest.mac))["rows"]
        return [str(row["text"]) for row in rows if row["kind"] == kind]

    def state(self, guest: Guest) -> str:
        """Where a guest's session stands; empty when it has none."""
        rows = [row for row in self.ask("sessions", "list")["rows"] if row["mac"] == str(guest.mac)]
        return str(rows[0]["state"]) if rows else ""

    # -- guests -----------------------------------------------------------------------------------------------------

    def lease(self, guest: Guest) -> IPv4Address:
        """Have a guest get an address with dhclient."""
        script = self.directory / "dhclient-script"
        if not script.exists():
            script.write_text(DHCLIENT_SCRIPT)
            script.chmod(0o755)
        stem = self.directory / guest.netns
        self.lab.run(
            guest.netns,
            [
                "dhclient",
                "-4",
                "-1",
                "-q",
                "-sf",
                str(script),
                "-lf",
                f"{stem}.leases",
                "-pf",
                f"{stem}.pid",
                "-cf",
                "/dev/null",
                "eth0",
            ],
            timeout_s=40,
        )
        guest.address = self.address(guest)
        assert guest.address is not None
        return guest.address

    def address(self, guest: Guest) -> IPv4Address | None:
        """The address that a guest's interface has."""
        shown = json.loads(self.lab.run(guest.netns, ["ip", "-j", "-4", "address", "show", "dev", "eth0"]).stdout)
        addresses = [row["local"] for item in shown for row in item.get("addr_info", [])]
        return IPv4Address(addresses[0]) if addresses else None

    def curl(self, guest: Guest, url: str, *options: str, limit_s: float = 8.0) -> Answer:
        """Ask for a page as a guest."""
        done = self.lab.run(
            guest.netns,
            ["curl", "-sS", "-i", "--max-time", str(limit_s), *options, url],
            check=False,
            timeout_s=limit_s + 10,
        )
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        while head.startswith("HTTP/1.1 100"):
            head, _, body = body.partition("\n\n")
        lines = head.splitlines()
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        status = int(lines[0].split()[1]) if lines and lines[0].startswith("HTTP/") else 0
        return Answer(status, headers, body, done.returncode, done.stderr.strip())

    def post_form(self, guest: Guest, url: str, fields: Sequence[tuple[str, str]], limit_s: float = 25.0) -> Answer:
        """Send a form as a guest."""
        options = [word for name, value in fields for word in ("--data-urlencode", f"{name}={value}")]
        return self.curl(guest, url, *options, limit_s=limit_s)

    def log_in(self, guest: Guest, name: str, password: str) -> Answer:
        """Log a guest in through the JSON interface."""
        body = json.dumps({"username": name, "password": password})
        return self.curl(
            guest, f"{self.portal}/api/v1/login", "-H", "Content-Type: application/json", "--data", body, limit_s=25
        )

    def log_out(self, guest: Guest) -> Answer:
        """Log a guest out through the JSON interface."""
        return self.curl(guest, f"{self.portal}/api/v1/logout", "-H", "Content-Type: application/json", "--data", "{}")

    def passes(self, guest: Guest, url: str = "http://203.0.113.80/") -> bool:
        """Whether the Internet itself answers a guest."""
        answer = self.curl(guest, url, limit_s=4)
        return answer.status == 200 and answer.body.startswith("the internet")


def _of_another_boot(kind: str, value: dict[str, Any]) -> None:
    """Change a saved session or lease to one of a boot whose clock had run for longer than this one's ever did."""
    if kind in (SESSION, LEASE):
        value["boot"] = "00000000-0000-0000-0000-000000000000"
        for name in ("started", "at"):
            if name in value:
                value[name] += 1e7
