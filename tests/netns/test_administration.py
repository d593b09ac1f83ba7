"""Administration over a real posternd, in a network namespace of its own: from the set-up code to the last logout."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
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

    def __init__(self, directory: Path, user: str = "") -> None:
        """`user`: run as this user with the three capabilities that it takes, instead of root."""
        self.directory = directory
        self._user = user
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
            command = ["unshare", "--net", *self._as_user(), sys.executable, "-m", "gateway", str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(self._answers, 60)

    def _as_user(self) -> list[str]:
        if not self._user:
            return []
        kept = "+net_admin,+net_raw,+net_bind_service"
        sets = [f"--{name}=-all,{kept}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
        group = str(pwd.getpwnam(self._user).pw_gid)
        return ["setpriv", f"--reuid={self._user}", f"--regid={group}", "--clear-groups", "--no-new-privs", *sets]

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


_CALLS_AS_SOMEBODY = """
import json, os, socket, sys
uid, gid, group, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.setgroups([group]); os.setgid(gid); os.setuid(uid)
peer = socket.socket(socket.AF_UNIX)
peer.connect(path)
refused = {}
for number, method in enumerate(sys.argv[5:]):
    body = json.dumps({"id": number, "method": method, "params": {"nonsense": 1}}).encode()
    peer.sendall(len(body).to_bytes(4, "big") + body)
    length = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
    answer = json.loads(peer.recv(length, socket.MSG_WAITALL))
    refused[method] = (answer.get("error") or {}).get("code")
print(json.dumps(refused))
"""


def test_each_web_process_has_its_own_list_and_nothing_else(daemon: Daemon) -> None:
    """Every documented method, asked by the portal's user and by the administration's, both in the socket's group."""
    page = (Path(__file__).resolve().parents[2] / "docs/control-protocol.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z]+(?:\.[a-z_]+)?)` \|", page, re.MULTILINE)
    methods = sorted({name for name in rows if "." in name} | {"status"})
    assert len(methods) > 60
    daemon.stop()
    portal, web = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
    users = "\toption group 'nogroup'\n\toption portal_user 'nobody'\n\toption admin_user 'daemon'\n"
    daemon.config.write_text(daemon.config.read_text().replace("config metrics", f"{users}config metrics"))
    for directory in (daemon.directory, daemon.directory / "run"):
        directory.chmod(0o755)
    daemon.start()
    for user, own in ((portal, ("client.", "portal.")), (web, ("admin.",))):
        words = [str(user.pw_uid), str(user.pw_gid), str(grp.getgrnam("nogroup").gr_gid)]
        path = str(daemon.directory / "run/control.sock")
        done = subprocess.run(
            ["/usr/bin/python3", "-c", _CALLS_AS_SOMEBODY, *words, path, *methods],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for method, code in json.loads(done.stdout).items():
            theirs = method.startswith(own) and method != "admin.setup_code"
            assert (code == "denied") is not theirs, f"{user.pw_name} {method}: {code}"


def test_a_daemon_without_root_has_its_file_written_by_postern_system() -> None:
    """The file stays root's; without postern-system the sentence says what is missing, and nothing is changed."""
    user = pwd.getpwnam("daemon")
    with tempfile.TemporaryDirectory(prefix=f"postern-administration-{os.getpid()}-") as directory:
        one = Daemon(Path(directory), user="daemon")
        for folder in (one.directory, one.directory / "run", one.directory / "state"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
            if folder != one.directory:
                os.chown(folder, user.pw_uid, user.pw_gid)
        one.config.chmod(0o640)
        os.chown(one.config, 0, user.pw_gid)
        before = one.config.stat()
        command = [sys.executable, "-m", "gateway.system", str(one.config)]
        options = ["--run-dir", str(one.directory / "run"), "--user", "daemon"]
        helper: subprocess.Popen[bytes] | None = None
        try:
            one.start()
            change: JsonValue = {"section_type": "radius", "option": "timeout", "values": ["5"]}
            version = one.ask("config.text")["version"]
            with pytest.raises(ControlError, match=r"postern-system.*does not answer.*start it"):
                one.ask("config.apply", changes=[change], version=version)
            with one.log.open("ab") as log:
                helper = subprocess.Popen([*command, *options], stdout=log, stderr=log)
            one.until((one.directory / "run/system.sock").exists)
            assert one.ask("config.apply", changes=[change], version=version)["confirm_within_s"] is None
            after = one.config.stat()
            assert "timeout '5'" in one.config.read_text()
            assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (0, user.pw_gid, 0o640)
            assert after.st_ino != before.st_ino
            assert [row["state"] for row in one.ask("config.history")["rows"]] == ["applied", "failed"]
        finally:
            one.stop(signal.SIGKILL)
            if helper is not None:
                helper.kill()
                helper.wait(30)
