"""Every command against a daemon that answers from a table."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import COMMANDS, main
from gateway.control.protocol import ControlError, JsonValue
from tests.gateway.cli.conftest import Run
from tests.gateway.cli.fake_daemon import ANSWERS, EVENTS, SESSION, FakeDaemon

ROOT = Path(__file__).parents[3]

ASKING = (
    (("status",), "status"),
    (("sessions", "show", "alice"), "sessions.show"),
    (("sessions", "kick", "alice"), "sessions.kick"),
    (("sessions", "authorize", "10.41.0.20"), "sessions.authorize"),
    (("leases", "list"), "leases.list"),
    (("leases", "release", "10.41.0.20"), "leases.release"),
    (("users", "list"), "users.list"),
    (("users", "remove", "bob"), "users.remove"),
    (("admins", "list"), "accounts.list"),
    (("admins", "remove", "alice"), "accounts.remove"),
    (("admins", "reset-totp", "alice"), "accounts.totp_remove"),
    (("setup-code",), "admin.setup_code"),
    (("config", "show"), "config.show"),
    (("config", "reload"), "config.reload"),
    (("ruleset", "print"), "ruleset.print"),
    (("ruleset", "check"), "ruleset.check"),
    (("events",), "events.list"),
    (("radius", "status"), "radius.status"),
    (("metrics",), "metrics.text"),
    (("debug", "profile"), "debug.profile"),
    (("debug", "heap"), "debug.heap"),
    (("debug", "tasks"), "debug.tasks"),
    (("debug", "rate-limiters"), "debug.rate_limiters"),
)


@pytest.mark.parametrize(("words", "method"), ASKING, ids=lambda value: value if isinstance(value, str) else None)
def test_json_is_the_daemons_answer(postern: Run, words: tuple[str, ...], method: str) -> None:
    """With --json, before or after the command, a program gets what the daemon answered."""
    for arguments in ((*words, "--json"), ("--json", *words)):
        status, out, err = postern(*arguments)
        assert (status, json.loads(out), err) == (0, ANSWERS[method], "")


@pytest.mark.parametrize(("words", "method"), ASKING, ids=lambda value: value if isinstance(value, str) else None)
def test_text_is_plain_in_a_pipe(postern: Run, words: tuple[str, ...], method: str) -> None:
    """Without a terminal there are words, no colours and no other control characters."""
    status, out, err = postern(*words)
    assert (status, err) == (0, "")
    assert out.strip()
    assert all(character == "\n" or character.isprintable() for character in out)


@pytest.mark.parametrize(("words", "method"), ASKING, ids=lambda value: value if isinstance(value, str) else None)
def test_a_refusal_is_a_sentence_and_a_status(
    postern: Run, daemon: FakeDaemon, words: tuple[str, ...], method: str
) -> None:
    """What the daemon refuses is told on standard error, with the exit status that the manual names."""
    for code, expected in (("not_found", 1), ("bad_params", 2), ("timeout", 3), ("denied", 4), ("internal", 1)):
        daemon.answers[method] = ControlError(code, "no such thing")
        assert postern(*words) == (expected, "", "postern: no such thing\n")


def test_status_shows_zones_and_warnings(postern: Run) -> None:
    """The status has each zone in a row, units for people, and every warning."""
    _, out, _ = postern("status")
    assert "up for    1d 02h" in out
    assert "11 online, 14 known" in out
    assert "42.0 MB" in out
    assert ["guest", "br-guest", "9", "3", "12", "240"] in [line.split() for line in out.splitlines()]
    assert "! the clock was set by nobody yet" in out
    assert "datapath  elements netlink, clients 11" in out
    assert "journal   records 420, size 65.5 kB" in out


def test_radius_status_shows_servers_and_queue(postern: Run, daemon: FakeDaemon) -> None:
    """Each server with its breaker and answer times, what to know about it, and what waits to be delivered."""
    _, out, _ = postern("radius", "status")
    for part in ("192.0.2.10", "open", "2.1 ms", "34 ms", "1m 01s", "no answer within 3 s"):
        assert part in out.splitlines()[1]
    assert "! main: no answer with Message-Authenticator" in out
    assert ["length", "3"] in [line.split() for line in out.splitlines()]
    daemon.answers["radius.status"] = {"servers": [], "queue": {}}
    assert postern("radius", "status")[1] == "no RADIUS server is configured\n"


def test_sessions_are_listed_in_pages(postern: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions are shown although the daemon hands out pages, and one seen twice is shown once."""
    monkeypatch.setattr("gateway.cli.sessions.PAGE_ROWS", 1)
    daemon.answers["sessions.list"] = {"total": 3, "rows": [SESSION]}
    status, out, _ = postern("sessions", "list", "--state", "online", "--zone", "guest", "--json")
    assert status == 0
    assert json.loads(out) == {"total": 3, "rows": [SESSION]}
    assert [params["offset"] for _, params in daemon.asked] == [0, 1, 2]
    assert all((params["state"], params["zone"]) == ("online", "guest") for _, params in daemon.asked)


def test_a_limit_stops_the_listing(postern: Run, daemon: FakeDaemon) -> None:
    """--limit asks for no more than that, and says how many there are."""
    daemon.answers["sessions.list"] = {"total": 300, "rows": [SESSION]}
    _, out, _ = postern("sessions", "list", "--limit", "1")
    assert [params["limit"] for _, params in daemon.asked] == [1]
    assert out.splitlines()[-1] == "1 of 300 sessions"


def test_a_listing_has_human_units(postern: Run) -> None:
    """Octets and times of a session are readable."""
    _, out, _ = postern("sessions", "list")
    row = out.splitlines()[1]
    for part in ("02:00:5e:10:00:2a", "alice", "12m 34s", "47m 26s", "1.2 MB", "98.8 MB", "alices-phone"):
        assert part in row


def test_authorize_passes_limits_in_base_units(postern: Run, daemon: FakeDaemon) -> None:
    """Sizes, rates and times given with units reach the daemon as octets, bit/s and seconds."""
    postern(
        *("sessions", "authorize", "02:00:5e:10:00:2a", "--minutes", "30", "--username", "guest of honour"),
        *("--idle-time", "15m", "--total", "1.5G", "--upload", "2MiB", "--download-rate", "2Mbit"),
    )
    assert daemon.asked == [
        (
            "sessions.authorize",
            {
                "client": "02:00:5e:10:00:2a",
                "minutes": 30,
                "username": "guest of honour",
                "idle_time_s": 900,
                "total_bytes": 1_500_000_000,
                "upload_bytes": 2_097_152,
                "download_bps": 2_000_000,
            },
        )
    ]


@pytest.mark.parametrize(
    ("result", "expected"), [("success", 0), ("already", 0), ("no_lease", 1), ("error", 1), ("novel", 1)]
)
def test_authorize_tells_how_it_ended(postern: Run, daemon: FakeDaemon, result: str, expected: int) -> None:
    """A client that was not let in is a failure with its reason."""
    daemon.answers["sessions.authorize"] = {"result": result}
    status, out, _ = postern("sessions", "authorize", "10.41.0.20")
    assert status == expected
    assert "10.41.0.20" in out


def test_kicking_nobody_fails(postern: Run, daemon: FakeDaemon) -> None:
    """Ending or releasing what does not exist is status 1."""
    daemon.answers["sessions.kick"] = {"ended": 0}
    daemon.answers["leases.release"] = {"released": 0}
    assert postern("sessions", "kick", "nobody", "--cause", "admin-reset")[0] == 1
    assert postern("leases", "release", "10.41.0.99")[0] == 1
    assert daemon.asked[0] == ("sessions.kick", {"client": "nobody", "cause": "admin-reset"})


def test_leases_are_counted_apart_from_what_is_only_spoken_for(postern: Run) -> None:
    """An address in quarantine is listed, with nobody's MAC, and is no lease."""
    status, out, _ = postern("leases", "list")
    assert status == 0
    assert out.splitlines()[-1] == "1 lease, 1 offered, reserved or in quarantine"
    assert "quarantined" in out
    assert "None" not in out


@pytest.mark.parametrize("words", [("sessions", "authorize", "x", "--total", "much"), ("sessions",), ("nonsense",), ()])
def test_wrong_usage_is_status_2(postern: Run, words: tuple[str, ...]) -> None:
    """What cannot be understood is wrong usage, before anything is asked of the daemon."""
    assert postern(*words)[0] == 2


def test_passwords_come_from_standard_input(postern: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is read from a pipe, without its line end; limits go along."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse \r\nnot this\n"))
    assert postern("users", "add", "bob", "--session-time", "8h")[0] == 0
    assert daemon.asked == [("users.add", {"username": "bob", "password": "correct horse ", "session_time_s": 28_800})]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert postern("users", "passwd", "bob")[0] == 2


def test_an_account_has_its_own_bounds(postern: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices, validity and a note reach the daemon; validity as a moment of the wall clock."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert postern("users", "add", "bob", "--devices", "2", "--valid-for", "1d", "--note", "room 7")[0] == 0
    assert daemon.asked == [
        (
            "users.add",
            {
                "username": "bob",
                "password": "correct horse",
                "devices": 2,
                "valid_until_unix": 1_086_400.0,
                "note": "room 7",
            },
        )
    ]


def test_an_administrator_is_made_with_a_role_and_a_password_from_standard_input(
    postern: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a role it is a viewer, who can break nothing."""
    monkeypatch.setattr("sys.stdin", io.StringIO("four words are enough\n" * 3))
    assert postern("admins", "add", "carol", "--role", "operator")[0] == 0
    assert postern("admins", "add", "dave")[0] == 0
    assert postern("admins", "passwd", "carol")[0] == 0
    assert daemon.asked == [
        ("accounts.add", {"name": "carol", "role": "operator", "password": "four words are enough"}),
        ("accounts.add", {"name": "dave", "role": "viewer", "password": "four words are enough"}),
        ("accounts.passwd", {"name": "carol", "password": "four words are enough"}),
    ]
    assert postern("admins", "add", "eve", "--role", "king")[0] == 2


def test_the_setup_code_is_printed_alone(postern: Run) -> None:
    """A script, or a person at the console, gets the code and nothing else."""
    assert postern("setup-code") == (0, "ZW98-8LMD-TM4S-ZK9G\n", "")


def test_no_option_takes_a_password(postern: Run) -> None:
    """A password in the arguments is not understood: every user of the machine could read it there."""
    assert postern("users", "add", "bob", "secret")[0] == 2
    assert postern("users", "add", "bob", "--password", "secret")[0] == 2


def test_a_prompt_asks_twice(postern: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a password is asked for twice, and two different ones change nothing."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    answers = iter(["one", "one", "one", "two", ""])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    assert postern("users", "passwd", "bob")[0] == 0
    assert postern("users", "passwd", "bob")[0] == 2
    assert postern("users", "passwd", "bob")[0] == 2
    assert daemon.asked == [("users.passwd", {"username": "bob", "password": "one"})]


def test_config_check_of_a_file_needs_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is checked without a daemon; each problem is one line that begins with file and line."""
    file = tmp_path / "postern.uci"
    file.write_text("config zone 'guest'\n\toption leese_time '5'\n")
    status = main(["--socket", "/nonexistent/socket", "config", "check", str(file)])
    out = capsys.readouterr().out
    assert status == 1
    assert f"{file}:2: " in out
    assert "lease_time" in out
    file.write_bytes(b"config zone\n\xff\n")
    assert main(["config", "check", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"] == [
        f"{file}:2: octet 0xff is not UTF-8: save the file as UTF-8"
    ]
    assert main(["config", "check", str(tmp_path / "missing")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_config_check_of_the_daemon(postern: Run, daemon: FakeDaemon) -> None:
    """Without a file the daemon checks its own; problems are status 1."""
    assert postern("config", "check") == (0, "no problems\n", "")
    daemon.answers["config.check"] = {"problems": ["/etc/config/postern:3: zone 'guest': no interface"]}
    status, out, _ = postern("config", "check")
    assert status == 1
    assert out.splitlines() == ["/etc/config/postern:3: zone 'guest': no interface", "1 problem"]


def test_config_show_of_one_section(postern: Run, daemon: FakeDaemon) -> None:
    """One section's options can be asked for; a section that is not there is status 1."""
    status, out, _ = postern("config", "show", "--effective", "zone")
    assert status == 0
    assert "lease_time" in out
    assert "secret" not in out
    assert daemon.asked == [("config.show", {"effective": True})]
    assert postern("config", "show", "zonk")[0] == 1


def test_a_refused_reload_fails(postern: Run, daemon: FakeDaemon) -> None:
    """A file with problems is not applied, and the command says so."""
    daemon.answers["config.reload"] = {"changed": [], "problems": ["line 3: wrong"]}
    status, out, _ = postern("config", "reload")
    assert status == 1
    assert "the running configuration stays as it was" in out


def test_the_ruleset_is_printed_as_it_is(postern: Run) -> None:
    """The ruleset's lines are kept, tabs as spaces, so that nft reads what was printed."""
    assert postern("ruleset", "print")[1].splitlines()[0] == "table inet postern {"


def test_events_of_one_client_tell_a_story(postern: Run, daemon: FakeDaemon) -> None:
    """One client's events are in order, with its names once at the top and the reasons in words."""
    _, out, _ = postern("events", "--client", "02:00:5e:10:00:2a", "--limit", "3")
    lines = out.splitlines()
    assert lines[0] == "02:00:5e:10:00:2a 10.41.0.20 in zone guest"
    assert [line.split()[1] for line in lines[2:]] == ["lease", "login", "gate_opened"]
    assert lines[-1].endswith("let through by RADIUS server 192.0.2.10, 3600 s")
    assert daemon.asked == [("events.list", {"client": "02:00:5e:10:00:2a", "limit": 3})]


def test_events_are_followed(postern: Run, daemon: FakeDaemon) -> None:
    """--follow prints the past, then what comes, each event once; as JSON, one event per line."""
    status, out, _ = postern("events", "--follow", "--json", "--limit", "2")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == EVENTS
    assert sorted(daemon.asked) == [("events.follow", {}), ("events.list", {"limit": 2})]
    daemon.answers["events.list"] = {"rows": [EVENTS[0]]}
    assert postern("events", "-f")[1].count("02:00:5e:10:00:2a") == 3
    daemon.asked.clear()
    assert postern("events", "-f", "-n", "0", "--client", "alice")[1].count("gate_opened") == 1
    assert daemon.asked == [("events.follow", {"client": "alice"})]


def test_events_before_the_clock_was_set(postern: Run, daemon: FakeDaemon) -> None:
    """Without a wall clock the order is still told, in seconds; an impossible clock does not stop the listing."""
    clocks: tuple[JsonValue, ...] = (None, 1e300, "?")
    rows: list[JsonValue] = [{**event, "at_unix": clock} for event, clock in zip(EVENTS, clocks, strict=True)]
    daemon.answers["events.list"] = {"rows": rows}
    status, out, _ = postern("events")
    assert status == 0
    assert "before the clock was set" in out


def test_names_from_the_network_cannot_act_on_the_terminal(postern: Run, daemon: FakeDaemon) -> None:
    """Escapes, line ends and direction marks in names are shown as escapes."""
    evil = "x\x1b]0;owned\x07\r\n\u202egnp.exe"
    daemon.answers["sessions.list"] = {"total": 1, "rows": [{**SESSION, "hostname": evil, "username": evil}]}
    daemon.answers["events.list"] = {"rows": [{**EVENTS[0], "text": evil, "kind": evil}]}
    daemon.answers["status"] = {"warnings": [evil], "zones": [{"name": evil}], "radius": [{"server": evil}]}
    daemon.answers["users.list"] = {"rows": [{evil: evil}]}
    daemon.answers["sessions.kick"] = ControlError("not_found", f"no client {evil}")
    for words in (("sessions", "list"), ("events",), ("status",), ("users", "list"), ("sessions", "kick", evil)):
        _, out, err = postern(*words)
        for printed in (out, err):
            assert "\x1b" not in printed
            assert "\u202e" not in printed
            assert "\r" not in printed
        assert "\\x1b" in out + err


def test_odd_answers_do_not_crash(postern: Run, daemon: FakeDaemon) -> None:
    """A daemon of another version may answer in other shapes; what is unknown is left out."""
    odd: tuple[JsonValue, ...] = (
        None,
        [],
        {},
        "x",
        {"rows": [1, None, {"x": {"y": [1]}}]},
        {"text": 5, "servers": "no"},
    )
    for answer in odd:
        for words, method in ASKING:
            daemon.answers[method] = answer
            status, _, err = postern(*words)
            assert status in (0, 1)
            assert "Traceback" not in err


def test_completion_prints_the_script(postern: Run) -> None:
    """`postern completion bash` prints what the shell evaluates."""
    assert "complete -F _postern postern" in postern("completion", "bash")[1]


def run_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_absent_daemon_is_status_3(tmp_path: Path) -> None:
    """Without a daemon the command says what is wrong and how to start it, and ends with 3."""
    done = run_process("--socket", str(tmp_path / "none.sock"), "status")
    assert done.returncode == 3
    assert "posternd is not running" in done.stderr
    assert "systemctl start postern" in done.stderr


def test_a_reader_that_leaves_is_no_failure(daemon: FakeDaemon) -> None:
    """`postern events | head -1` ends quietly."""
    daemon.answers["metrics.text"] = {"text": "postern_sessions 1\n" * 50_000}
    line = f"{sys.executable} -m gateway.cli.main --socket {daemon.path} metrics | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "postern_sessions 1\n0\n"
    assert done.stderr == ""


def test_status_imports_only_what_it_needs(daemon: FakeDaemon) -> None:
    """The commands that look must start fast: no asyncio, no configuration, no analysis engine, no other command."""
    script = (
        "import sys; from gateway.cli.main import main;"
        f"main(['--socket', {str(daemon.path)!r}, 'status']);"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "gateway.cli.status" in loaded
    others = {command.module for name, command in COMMANDS.items() if name != "status"}
    heavy = {
        "asyncio",
        "gateway.config",
        "gateway.config_loader",
        "gateway.analysis.engine",
        "logging",
        "typing_extensions",
    }
    assert not loaded & (others | heavy)


def test_version_and_help_need_no_daemon() -> None:
    """`postern --version` and `postern --help` work anywhere, and the overview names every command."""
    assert run_process("--version").stdout.startswith("postern ")
    overview = run_process("--help")
    assert overview.returncode == 0
    assert all(re.search(rf"^    {name}\b", overview.stdout, re.MULTILINE) for name in COMMANDS)
