"""The command `postern-web`: arguments, privileges, and a real start and stop against a real control socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.webui.fake_daemon import FakeDaemon, free_port
from tests.webui.wire import get, post, run
from webui.__main__ import main
from webui.privileges import UserError, become


def test_an_unknown_role_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, as for every wrong argument."""
    with pytest.raises(SystemExit) as caught:
        main(["--role", "butler"])
    assert caught.value.code == 2
    assert "portal" in capsys.readouterr().err


def test_an_unknown_user_is_refused_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is opened."""
    assert main(["--role", "portal", "--user", "nobody-of-this-name"]) == 1
    assert "useradd" in capsys.readouterr().err


@pytest.mark.root
def test_root_is_given_up_for_ever() -> None:
    """All three user ids, all three group ids, and root's other groups are gone."""
    script = "from webui.privileges import become; import os; become('nobody'); print(os.getresuid(), os.getgroups())"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20).stdout
    import pwd

    uid = pwd.getpwnam("nobody").pw_uid
    assert out.startswith(f"({uid}, {uid}, {uid})")
    assert "0," not in out.split(" [")[1]


@pytest.mark.root
def test_only_root_can_become_somebody_else() -> None:
    """Anybody else is told so."""
    script = (
        "from webui.privileges import become, UserError\nbecome('nobody')\n"
        "try:\n    become('root')\nexcept UserError as err:\n    print(err)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20).stdout
    assert "only root" in out


def test_becoming_oneself_changes_nothing() -> None:
    """An init script may give the user although it already switched."""
    import pwd

    become(pwd.getpwuid(os.getuid()).pw_name)
    with pytest.raises(UserError):
        become("nobody-of-this-name")


async def _serve_frames(daemon: FakeDaemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The framing of the control socket, around a daemon in memory."""
    connection = await daemon.connect()
    try:
        while header := await reader.read(4):
            message = json.loads(await reader.readexactly(int.from_bytes(header, "big")))
            if "id" not in message or "method" not in message:
                continue
            if message["method"] == "portal.events":
                answer = {"id": message["id"], "event": {"clients": [{"ip": "127.0.0.9", "state": "online"}]}}
            else:
                answer = {"id": message["id"], "result": await connection.call(message["method"], message["params"])}
            body = json.dumps(answer).encode()
            writer.write(len(body).to_bytes(4, "big") + body)
    finally:
        writer.close()


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_the_program_waits_for_the_daemon_serves_and_stops(tmp_path: Path, parser: str) -> None:
    """Started before the daemon is there; SIGTERM ends it with code 0."""

    async def story() -> None:
        daemon = FakeDaemon(free_port())
        path = tmp_path / "control.sock"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "webui", "--role", "portal", "--socket", str(path), "--parser", parser),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await asyncio.sleep(0.3)
            server = await asyncio.start_unix_server(lambda r, w: _serve_frames(daemon, r, w), path)
            for _ in range(200):
                try:
                    answer = await get(daemon.port, "/generate_204", "www.gstatic.com")
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            assert answer.status == 302
            assert (await get(daemon.port, "/", client="127.0.0.7")).status == 200
            late = await get(daemon.port, "/generate_204", "www.gstatic.com", client="127.0.0.9")
            assert late.status == 204
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
            server.close()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    run(story())


@pytest.mark.parametrize("form", ["text", "json"])
def test_its_lines_are_those_of_the_daemon_and_hold_no_password(tmp_path: Path, form: str) -> None:
    """Text or JSON, at the most talkative level, whatever became of the login and however wrong it was sent."""
    secret = "correct-horse-battery"
    wishes = ({"username": "alice", "password": secret}, {"username": "alice\r\n", "password": secret}, [secret])

    async def story() -> str:
        daemon = FakeDaemon(free_port())
        path = tmp_path / "control.sock"
        server = await asyncio.start_unix_server(lambda r, w: _serve_frames(daemon, r, w), path)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "webui", "--role", "portal", "--socket", str(path)),
            *("--log-level", "debug", "--log-format", form),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            for _ in range(200):
                try:
                    await get(daemon.port, "/")
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            for wish in wishes:
                await post(daemon.port, "/api/v1/login", json.dumps(wish).encode(), "application/json")
            await post(daemon.port, "/login", urlencode({"username": "alice", "password": secret}).encode())
            await get(daemon.port, f"/login?username=alice&password={secret}")
            await get(daemon.port, f"/login?password={secret}#", headers="Host: twice\r\n")
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 10)
            server.close()
            return errors.decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    lines: list[str] = []

    async def collect() -> None:
        lines.extend((await story()).splitlines())

    run(collect())
    assert secret not in "\n".join(lines)
    if form == "json":
        listening = [line for line in map(json.loads, lines) if line["message"] == "listening"]
        assert listening[0]["logger"] == "webui.portal.service"
        assert listening[0]["level"] == "info"
    else:
        assert any(" info webui.portal.service listening zone=" in line for line in lines), lines
