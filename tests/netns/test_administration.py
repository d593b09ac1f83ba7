"""Administration over a real posternd, in a network namespace of its own: from the set-up code to the last logout."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import ControlError, JsonValue

pytestmark = pytest.mark.root

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


class Daemon:
    """posternd without a zone, in a namespace that ends with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "postern"
        self.log = directory / "log"
        self.config.write_text(
            f"# the test's\nconfig postern\n\toption state_dir '{directory}/state'\n"
            f"\toption run_dir '{directory}/run'\nconfig metrics\n\toption enabled '0'\n"
            "config accounts\n\toption hash_time '0.02'\n"
        )
        (directory / "run").mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self.credential = ""

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            command = ["unshare", "--net", sys.executable, "-m", "gateway", str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(self._answers, 60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            self.ask("admin.state")
        except ControlError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(number)  # unshare has become posternd
            self._process.wait(60)
            self._process = None

    def ask(self, method: str, /, **params: JsonValue) -> Any:
        """A method at the socket, as root."""
        with SyncControlClient(self.directory / "run/control.sock") as client:
            return client.call(method, params)

    def act(self, method: str, /, **params: JsonValue) -> Any:
        """A method on behalf of who has logged in."""
        inner: dict[str, JsonValue] = dict(params)
        return self.ask("admin.call", credential=self.credential, address=HERE, method=method, params=inner)

    def code(self, method: str, /, **params: JsonValue) -> str:
        """The code of a refusal."""
        with pytest.raises(ControlError) as caught:
            self.act(method, **params)
        return caught.value.code

    def until(self, condition: Any, timeout_s: float = 30) -> None:
        """Wait until a condition holds; Any: a function without arguments."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon, running."""
    with tempfile.TemporaryDirectory(prefix=f"postern-administration-{os.getpid()}-") as directory:
        one = Daemon(Path(directory))
        try:
            one.start()
            yield one
        finally:
            one.stop(signal.SIGKILL)


def test_from_the_set_up_code_to_the_end_of_a_login(daemon: Daemon) -> None:
    """The code is in the log; a viewer may not change anything; who was revoked is out, also after a restart."""
    code = daemon.ask("admin.setup_code")["code"]
    assert code in daemon.log.read_text()
    assert daemon.ask("admin.setup", code="AAAA", name="eve", password=PASSWORD, address=HERE)["result"] == "reject"
    answer = daemon.ask("admin.setup", code=code, name="alice", password=PASSWORD, address=HERE)
    daemon.credential = alices = answer["session"]
    daemon.act("accounts.add", name="victor", password=PASSWORD, role="viewer")
    victors = daemon.ask("admin.login", name="victor", password=PASSWORD, address=HERE)["session"]
    daemon.credential = victors
    assert daemon.act("status")["sessions"]["online"] == 0
    assert daemon.act("history.read", series=["online"])["series"]["online"]
    for method in ("config.reload", "config.text", "accounts.list", "debug.tasks", "client.login"):
        assert daemon.code(method) == "denied"

    assert stat.S_IMODE((daemon.directory / "state/admin.db").stat().st_mode) == 0o600
    daemon.stop()
    daemon.start()
    assert daemon.act("status")["sessions"]["online"] == 0  # the login survived
    (row,) = daemon.act("accounts.sessions")["rows"]
    daemon.credential = alices
    assert daemon.act("accounts.revoke", id=row["id"]) == {"ended": 1}
    daemon.credential = victors
    assert daemon.code("status") == "unauthenticated"
    daemon.stop(signal.SIGKILL)
    daemon.start()
    assert daemon.code("status") == "unauthenticated"
    daemon.credential = alices
    written = daemon.act("audit.list")["rows"]
    assert ("victor", "config.reload", "denied") in {(row["who"], row["method"], row["outcome"]) for row in written}
    assert PASSWORD not in str(written)


def test_a_configuration_that_is_not_confirmed_is_taken_back(daemon: Daemon) -> None:
    """By the clock, and also when the daemon was killed meanwhile; what is confirmed stays."""
    before = daemon.config.read_text()

    def apply(option: str, value: str, confirm_s: int | None) -> Any:
        version = daemon.ask("config.text")["version"]
        change: JsonValue = {"section_type": "admin", "option": option, "values": [value]}
        return daemon.ask("config.apply", changes=[change], version=version, confirm_s=confirm_s)

    assert apply("port", "9443", 1)["confirm_within_s"] == 1
    assert "9443" in daemon.config.read_text()
    daemon.until(lambda: daemon.ask("config.history")["rows"][0]["state"] == "reverted")
    assert daemon.config.read_text() == before

    assert apply("port", "9443", None)["confirm_within_s"] == 60
    daemon.stop(signal.SIGKILL)
    daemon.start()
    daemon.until(lambda: daemon.ask("config.text")["pending"] is not None)
    pending = daemon.ask("config.text")["pending"]
    daemon.ask("config.revert", change=pending["change"])
    assert daemon.config.read_text() == before
    assert daemon.ask("admin.config")["port"] == 8443

    number = apply("port", "9443", None)["change"]
    daemon.ask("config.confirm", change=number)
    assert daemon.ask("admin.config")["port"] == 9443
    assert daemon.config.read_text().startswith("# the test's\n")
    assert apply("session_idle", "600", None)["confirm_within_s"] is None

    backup = daemon.ask("backup.create", passphrase="a long passphrase")
    apply("session_idle", "900", None)
    daemon.ask("backup.restore", passphrase="a long passphrase", data=backup["data"])
    assert daemon.ask("admin.config")["session_idle_s"] == 600
