"""A real FreeRADIUS 3.2 for tests, demonstration and benchmark, started as a child with a configuration of its own.

Nothing of the system's `/etc/freeradius` is read or changed: the configuration directory is written below `workdir`.
The server is a child in the foreground, in a network namespace when one is named. It needs no root by itself;
entering a namespace does. Debian packages: `freeradius` and `freeradius-utils` (radclient).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_LIMIT_S: Final = 15.0
_STOP_LIMIT_S: Final = 5.0
_CLIENT_LIMIT_S: Final = 20.0

_RADIUSD_CONF: Final = """\
prefix = /usr
name = freeradius
libdir = /usr/lib/freeradius
raddbdir = {directory}
logdir = {directory}
run_dir = {directory}
pidfile = {directory}/freeradius.pid
max_request_time = 30
cleanup_delay = 5
max_requests = 65536
hostname_lookups = no
proxy_requests = no

log {{
    destination = stdout
    auth = no
}}

security {{
    max_attributes = 200
    reject_delay = 0
    status_server = yes
}}

thread pool {{
    start_servers = {threads}
    max_servers = {threads}
    min_spare_servers = 0
    max_spare_servers = {threads}
    max_queue_size = 65536
    max_requests_per_server = 0
    auto_limit_acct = no
}}

modules {{
    pap {{
    }}
    chap {{
    }}
    always ok {{
        rcode = ok
    }}
    files {{
        filename = {directory}/users
    }}
    detail {{
        filename = {directory}/detail
        permissions = 0600
        header = "%t"
        locking = no
        log_packet_header = no
    }}
}}

{clients}
server postern_test {{
    listen {{
        type = auth
        ipaddr = *
        port = {auth_port}
        limit {{
            max_connections = 16
            lifetime = 0
            idle_timeout = 30
        }}
    }}
    listen {{
        type = acct
        ipaddr = *
        port = {acct_port}
    }}
    authorize {{
{sign}
        files
        chap
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
        Auth-Type CHAP {{
            chap
        }}
    }}
    post-auth {{
        Post-Auth-Type REJECT {{
{sign}
            ok
        }}
    }}
    preacct {{
        ok
    }}
    accounting {{
        {accounting}
    }}
}}
"""

# FreeRADIUS 3.2.1 puts Message-Authenticator into an answer only when told to; the value is computed when it is sent.
_SIGN: Final = "            update reply {\n                Message-Authenticator := 0x00\n            }"

_CLIENT: Final = """\
client {name} {{
    ipaddr = {network}
    secret = {secret}
    require_message_authenticator = {require}
    limit {{
        max_connections = 0
    }}
}}
"""

_DETAIL_LINE: Final = re.compile(r"\t([A-Za-z0-9-]+(?::\d+)?) = (.*)")


@dataclass(frozen=True, slots=True)
class DetailRecord:
    """One accounting request as the server wrote it down: attribute names with their values, in order."""

    attributes: Mapping[str, tuple[str, ...]]

    def __getitem__(self, name: str) -> str:
        """The first value of an attribute, without quotes; raises KeyError when it is absent."""
        return self.attributes[name][0]

    def get(self, name: str, default: str = "") -> str:
        """The first value of an attribute, or the default."""
        return self.attributes.get(name, (default,))[0]


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """What radclient saw: its exit code and everything it printed."""

    returncode: int
    text: str

    @property
    def code(self) -> str:
        """Name of the answer's packet code, such as `Disconnect-ACK`; empty when none came."""
        found = re.search(r"^Received (\S+) Id", self.text, re.MULTILINE)
        return found.group(1) if found else ""


def user_entry(name: str, password: str, *reply: str, check: str = "") -> str:
    """One entry of a users file; each `reply` is a pair such as `Session-Timeout := 60`."""
    head = f'{name} Cleartext-Password := "{password}"' + (f", {check}" if check else "")
    return head + "".join(f"\n\t{pair}," for pair in reply).rstrip(",") + "\n\n"


def read_detail(text: str) -> list[DetailRecord]:
    """Read the text of a detail file: records are separated by empty lines, one attribute per indented line."""
    records = []
    for block in re.split(r"\n\s*\n", text):
        attributes: dict[str, list[str]] = {}
        for line in block.splitlines():
            if found := _DETAIL_LINE.fullmatch(line):
                value = found.group(2)
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                attributes.setdefault(found.group(1), []).append(value)
        if attributes:
            records.append(DetailRecord({name: tuple(values) for name, values in attributes.items()}))
    return records


def radclient(
    server: str,
    kind: str,
    secret: str,
    attributes: Sequence[str],
    *,
    namespace: str | None = None,
    retries: int = 3,
    timeout_s: float = 2.0,
) -> ClientAnswer:
    """Send one request with the real radclient; `kind` is auth, acct, status, disconnect or coa, `server` host:port."""
    command = [*_enter(namespace), "radclient", "-x", "-r", str(retries), "-t", str(timeout_s), server, kind, secret]
    done = subprocess.run(
        command,
        input="\n".join(attributes) + "\n",
        capture_output=True,
        text=True,
        timeout=_CLIENT_LIMIT_S,
        check=False,
    )
    return ClientAnswer(done.returncode, done.stdout + done.stderr)


@dataclass
class FreeRadius:
    """A FreeRADIUS server as a context manager; `stop` and `start` may be called inside to make an outage.

    `users` is the text of a users file (see `user_entry`), `clients` maps prefixes to secrets. With `detail` off the
    server answers accounting without writing it down, for benchmarks. `message_authenticator` makes it sign its
    answers, which 3.2.1 does not do by itself.
    """

    workdir: Path
    users: str
    clients: Mapping[str, str]
    namespace: str | None = None
    auth_port: int = 1812
    acct_port: int = 1813
    detail: bool = True
    message_authenticator: bool = True
    require_message_authenticator: bool = False
    threads: int = 4
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> FreeRadius:
        self._write_configuration()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def directory(self) -> Path:
        """Where its configuration, log and detail file are."""
        return self.workdir / "freeradius"

    @property
    def pid(self) -> int:
        """Its process id; raises RuntimeError when it is stopped."""
        if self._process is None:
            raise RuntimeError("FreeRADIUS is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it says that it is ready; raises RuntimeError with its log otherwise."""
        if self._process is not None:
            return
        if shutil.which("freeradius", path=_PATH) is None:
            raise RuntimeError("FreeRADIUS is not installed: apt-get install freeradius freeradius-utils")
        log = self.directory / "freeradius.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_enter(self.namespace), "freeradius", "-f", "-l", "stdout", "-d", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": _PATH, "LC_ALL": "C"},
            )
        limit = time.monotonic() + _START_LIMIT_S
        while "Ready to process requests" not in log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise RuntimeError(f"FreeRADIUS did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server; its ports then answer with ICMP unreachable. Nothing happens when it is stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_LIMIT_S)

    def pause(self) -> None:
        """Let the server fall silent without closing its ports, as a hung machine does; `resume` ends it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`; requests that waited in its sockets are answered now."""
        os.kill(self.pid, signal.SIGCONT)

    def records(self) -> list[DetailRecord]:
        """All accounting requests written down so far, oldest first."""
        path = self.directory / "detail"
        return read_detail(path.read_text(errors="replace")) if path.exists() else []

    def wait_for_records(self, count: int, limit_s: float = 10.0) -> list[DetailRecord]:
        """Wait until at least `count` requests are written down; returns what there is when the time is over."""
        until = time.monotonic() + limit_s
        while len(records := self.records()) < count and time.monotonic() < until:
            time.sleep(0.05)
        return records

    def log(self) -> str:
        """What the server printed since its last start."""
        return (self.directory / "freeradius.log").read_text(errors="replace")

    def _write_configuration(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        files = {
            "radiusd.conf": _RADIUSD_CONF.format(
                directory=self.directory,
                threads=self.threads,
                auth_port=self.auth_port,
                acct_port=self.acct_port,
                clients="".join(self._client_sections()),
                sign=_SIGN if self.message_authenticator else "",
                accounting="detail" if self.detail else "ok",
            ),
            "users": self.users,
        }
        for name, text in files.items():
            path = self.directory / name
            path.write_text(text)
            path.chmod(0o640)  # FreeRADIUS refuses configuration that everybody may write

    def _client_sections(self) -> Iterator[str]:
        require = "yes" if self.require_message_authenticator else "no"
        for number, (network, secret) in enumerate(self.clients.items()):
            yield _CLIENT.format(name=f"client{number}", network=network, secret=secret, require=require)


def _enter(namespace: str | None) -> list[str]:
    return ["ip", "netns", "exec", namespace] if namespace else []
