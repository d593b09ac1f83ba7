"""postern-system over its real socket, and posternd's way to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control import protocol
from gateway.control.blocking import SyncControlClient
from gateway.control.protocol import BAD_PARAMS, UNAVAILABLE, UNKNOWN_METHOD, ControlError, JsonValue, Params
from gateway.system import client as client_module
from gateway.system.client import System
from gateway.system.server import SystemServer
from gateway.system.verbs import VERBS, Place

TEXT = "config postern\n\toption nas_identifier 'hotel'\n"


def broken(place: Place, params: Params) -> JsonValue:
    """A verb with a fault of ours."""
    raise RuntimeError("a fault")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration that the server writes."""
    path = tmp_path / "postern"
    path.write_text("config postern\n")
    return path


@pytest.fixture
def server(tmp_path: Path, config: Path) -> Iterator[Path]:
    """A server in a thread; its socket."""
    path = tmp_path / "system.sock"
    stopped = threading.Event()
    one = SystemServer(path, "no-such-user", Place(config), {**VERBS, "broken": broken})
    one.bind()
    thread = threading.Thread(target=one.serve, args=(stopped.is_set,), name="postern-system")
    thread.start()
    yield path
    stopped.set()
    thread.join()
    one.close()
    assert not path.exists()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the server answers root and posternd's user only")


@needs_root
def test_root_has_the_configuration_written(server: Path, config: Path) -> None:
    """Text that is UCI, and nothing else; the path is not the caller's to choose."""
    with SyncControlClient(server) as client:
        assert client.call("write_config", {"text": TEXT}) == {"written": len(TEXT)}
        assert config.read_text() == TEXT
    refused: tuple[Params, ...] = (
        {"text": "config '"},
        {"text": TEXT, "path": "/etc/passwd"},
        {},
        {"text": "x" * (1 << 19) + "y"},
    )
    for params in refused:
        with SyncControlClient(server) as client, pytest.raises(ControlError) as caught:
            client.call("write_config", params)
        assert caught.value.code == BAD_PARAMS
    assert config.read_text() == TEXT


@needs_root
def test_faults_and_unknown_verbs_do_not_end_it(server: Path) -> None:
    """Neither does a caller who says nonsense, or nothing at all."""
    with SyncControlClient(server) as client, pytest.raises(ControlError, match="write_config") as caught:
        client.call("reboot")
    assert caught.value.code == UNKNOWN_METHOD
    with SyncControlClient(server) as client, pytest.raises(ControlError, match="its log says why"):
        client.call("broken")
    for octets in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2{}", b"\xff\xff\xff\xff", b"\0\0\0\1"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(server))
            peer.sendall(octets)
    with SyncControlClient(server) as client:
        assert client.call("write_config", {"text": TEXT}) == {"written": len(TEXT)}


@pytest.mark.root
def test_others_are_refused_by_the_kernels_word(server: Path, config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may reach the socket is still not posternd; what they hear of it depends on who is quicker."""
    server.parent.chmod(0o755)
    for parent in server.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o111)
    script = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1])\n"
        'body = b\'{"id":1,"method":"write_config","params":{"text":"config x"}}\'\n'
        "try:\n"
        "    peer.sendall(len(body).to_bytes(4, 'big') + body)\n"
        "    print(peer.recv(4096).decode('utf-8', 'replace'))\n"
        "except OSError as err: print(err)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, str(server)], capture_output=True, text=True, timeout=30, check=True
    )
    assert "written" not in done.stdout
    assert "caller refused uid=65534" in caplog.text
    assert config.read_text() == "config postern\n"


@needs_root
def test_posternd_asks_it_where_it_may_not_write_itself(
    server: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And writes itself where it may, so that a box without postern-system works."""
    system = System(config, server.parent)
    asyncio.run(system.write_config(TEXT))
    assert config.read_text() == TEXT
    monkeypatch.setattr(client_module, "may_replace", lambda path: False)
    asyncio.run(system.write_config(TEXT + "# again\n"))
    assert config.read_text() == TEXT + "# again\n"
    with pytest.raises(ControlError, match="not UCI") as caught:
        asyncio.run(system.write_config("config '"))
    assert caught.value.code == BAD_PARAMS


def test_without_it_a_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an errno."""
    monkeypatch.setattr(client_module, "may_replace", lambda path: False)
    with pytest.raises(ControlError, match=r"postern-system.*start it.*or make the change as root") as caught:
        asyncio.run(System(tmp_path / "postern", tmp_path).write_config(TEXT))
    assert caught.value.code == UNAVAILABLE


def test_the_time_zone_is_asked_for_where_etc_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root within a service that may not write /etc is no better off than others."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ControlError, match=r"may not set the time zone itself.*postern-system"):
        asyncio.run(System(tmp_path / "postern", tmp_path).set_timezone("UTC"))


@needs_root
def test_it_runs_as_a_program(tmp_path: Path) -> None:
    """It serves its socket, keeps certificates where it is told to, and removes the socket when it is told to stop."""
    (tmp_path / "postern").write_text("")
    (tmp_path / "web").mkdir()
    places = "--run-dir", str(tmp_path / "run"), "--admin-web-dir", str(tmp_path / "web")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.system", str(tmp_path / "postern"), *places],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "ready" in process.stderr.readline()
        assert (tmp_path / "run/system.sock").is_socket()
        with SyncControlClient(tmp_path / "run/system.sock") as client:
            for operator in (False, True):
                kept: Params = {"certificate": f"-----BEGIN {operator}", "key": "-----BEGIN KEY"}
                assert client.call("write_certificate", {**kept, "operator": operator}) == {"written": True}
                assert client.call("read_certificate", {"operator": operator}) == kept
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    names = {"device.crt", "device.key", "operator.crt", "operator.key"}
    assert {path.name for path in (tmp_path / "web").iterdir()} == names
    assert process.returncode == 0, said
    assert not (tmp_path / "run/system.sock").exists()


def test_every_verb_is_known_to_the_protocol() -> None:
    """Names that a frame can carry; none of them takes a path."""
    for name in VERBS:
        assert protocol.parse_request(protocol.request_frame(1, name, {})[4:]).method == name
