"""What the web's benchmark runs on: a laboratory with the whole gateway, its portal, its administration and a worker.

All processes are the real ones, each with the user and the rights that its service gives it. A crowd of guests has
leases; the administration listens on loopback. Byte code is there, as it is where packages are installed.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.bench.crowd import POOL, address_of, lease_all, settle, widen
from tests.browser.administration import NAME, PASSWORD, Administration
from tests.netns.captures import Captures
from tests.netns.harness import PROJECT, Guest, Lab
from tests.netns.hotspot import Hotspot
from tests.webui.admin.operators import Operator

# A page with all that a login page can have: the methods' forms and terms.
ZONE: Final = (
    f"\toption pool '{POOL}'\n\tlist method 'voucher'\n\tlist method 'password'\n\tlist method 'click'\n"
    "\toption title 'Harbour Café'\n\toption terms 'Be kind to each other. Nobody is responsible for anything.'\n"
)
SECTIONS: Final = """
config dhcp
\toption probe '0'
\toption new_client_rate '100000'
\toption new_client_burst '100000'
"""


@dataclass(slots=True)
class WebStage:
    """The laboratory; `members` guests have leases when it is entered."""

    members: int = 300  # so many that none of them reaches the rate that one address may have
    upload_limit_mb: int = 500
    quota_mb: int = 2000
    lab: Lab = field(init=False)
    guest: Guest = field(init=False)
    hotspot: Hotspot = field(init=False)
    captures: Captures = field(init=False)
    administration: Administration = field(init=False)
    operator: Operator = field(init=False)  # the first administrator, with a token
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> WebStage:
        with contextlib.ExitStack() as stack:
            stack.enter_context(as_installed())
            self.lab = stack.enter_context(Lab("bench-web", guests_wanted=0))
            self.guest = widen(self.lab)
            self.hotspot = stack.enter_context(Hotspot(self.lab, zone_options=ZONE, sections=SECTIONS))
            settle(self.lab, self.guest, self.members)
            lease_all(self.lab, self.guest, self.members)
            self.captures = stack.enter_context(Captures(self.hotspot, "--quota-mb", str(self.quota_mb)))
            self.administration = stack.enter_context(
                Administration(
                    self.hotspot,
                    options=("--spool", str(self.captures.spool), "--capture-limit-mb", str(self.upload_limit_mb)),
                )
            )
            self.hotspot.call("accounts.add", name=NAME, password=PASSWORD, role="administrator")
            self.operator = Operator(self.port)
            self.operator.log_in(NAME, PASSWORD)
            self.operator.make_token("read", "captures")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def port(self) -> int:
        """Where the administration listens."""
        return self.administration.port

    @property
    def portal_pid(self) -> int:
        """The portal's process id."""
        assert self.hotspot.web is not None
        return self.hotspot.web.pid

    @property
    def daemon_pid(self) -> int:
        """posternd's process id."""
        assert self.hotspot.daemon is not None
        return self.hotspot.daemon.pid

    @property
    def admin_pid(self) -> int:
        """The administration's process id."""
        assert self.administration.process is not None
        return self.administration.process.pid

    @property
    def sources(self) -> list[str]:
        """Addresses of guests."""
        return [address_of(member) for member in range(self.members)]

    def people(self, count: int) -> list[tuple[str, str]]:
        """So many more administrators; their names and passwords."""
        known = {row["name"] for row in self.hotspot.call("accounts.list")["rows"]}
        names = [f"person{number}" for number in range(count)]
        for name in names:
            if name not in known:
                self.hotspot.call("accounts.add", name=name, password=PASSWORD, role="administrator")
        return [(name, PASSWORD) for name in names]


@contextlib.contextmanager
def as_installed() -> Iterator[None]:
    """Have byte code beside the sources, where every user's process finds it; what was made is removed again."""
    names = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    former = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    rooms = [PROJECT / "gateway", PROJECT / "webui"]
    there = {path for room in rooms for path in room.rglob("__pycache__")}
    umask = os.umask(0o022)
    try:
        for room in rooms:
            compileall.compile_dir(room, quiet=2)
        yield
    finally:
        os.umask(umask)
        for room in rooms:
            for path in set(room.rglob("__pycache__")) - there:
                shutil.rmtree(path, ignore_errors=True)
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ.update(former)


def resident_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory of a process in MB; `VmHWM` is the most that it had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(what)


def reset_peak(pid: int) -> None:
    """Have `VmHWM` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
