"""Password guessing, movement between hosts and passwords in clear, next to monitors, backups and administrators."""

from __future__ import annotations

import base64
import json
import random

import pytest

from tests.gateway.analysis.attack_traffic import (
    ATTACKER,
    LAN,
    OUTSIDE,
    QUIET_S,
    VICTIM,
    alarms,
    dialogue,
    ftp_login,
    household,
    only,
    refused,
    security,
    ssh_guess,
    syn_flood,
    unanswered,
)
from tests.gateway.analysis.packets import Trace, one

UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(trace: Trace, t: float, client: str, sport: int, server: str, answer: bytes, head: bytes = b"") -> None:
    """One HTTP request with its answer."""
    request = b"GET /admin HTTP/1.1\r\nHost: box.example\r\n" + head + b"\r\n"
    trace.session(t, client, sport, server, 80, up=request, down=answer, rtt=0.003)


def ssh_session(trace: Trace, t: float, client: str, sport: int, server: str, up: int, down: int, lasts: float) -> None:
    """A successful SSH session of some size."""
    trace.session(
        t, client, sport, server, 22, up=b"SSH-2.0-x\r\n" + bytes(up), down=b"SSH-2.0-y\r\n" + bytes(down), lasts=lasts
    )


def test_ftp_failures_are_counted_by_their_answers() -> None:
    """Twelve connections with one 530 each are guessing by what the server said; the words tried are nowhere kept."""
    trace = Trace()
    household(trace)
    for number in range(12):
        ftp_login(trace, QUIET_S + number * 3.0, ATTACKER, 50_000 + number, VICTIM, 1, word="correct-horse-")
    report = trace.report()
    found = one(report, "security.brute_force")
    assert (found["severity"], found["evidence"]["failures"], found["confidence"]) == ("medium", 12, 0.8)
    assert found["hosts"] == {"source": ATTACKER, "target": VICTIM}
    assert [row["kind"] for row in security(report, "medium")] == ["security.brute_force"]
    assert "correct-horse" not in json.dumps(report)


def test_many_tries_on_few_connections_are_guessing() -> None:
    """Two connections with six failed logins each are twelve failures."""
    trace = Trace()
    for number in range(2):
        ftp_login(trace, QUIET_S + number * 30.0, ATTACKER, 50_000 + number, VICTIM, 6)
    assert alarms(trace) == ["security.brute_force"]


def test_nine_failures_are_a_bad_day() -> None:
    """Nine tries of somebody who has forgotten the word are below the threshold."""
    trace = Trace()
    for number in range(9):
        ftp_login(trace, QUIET_S + number * 3.0, ATTACKER, 50_000 + number, VICTIM, 1)
    assert alarms(trace) == []


def test_failures_over_a_day_are_no_guessing() -> None:
    """A forgotten script that fails once an hour for a day is never ten within the window."""
    trace = Trace()
    for number in range(24):
        ftp_login(trace, number * 3600.0, LAN + "9", 50_000 + number, VICTIM, 1)
    assert "security.brute_force" not in alarms(trace)


@pytest.mark.parametrize(("tries", "severity"), [(10, "medium"), (30, "high"), (100, "critical")])
def test_short_ssh_sessions_weigh_by_number(tries: int, severity: str) -> None:
    """SSH hides what fails, but not that ten, thirty or a hundred sessions are short and alike."""
    trace = Trace()
    household(trace)
    for number in range(tries):
        ssh_guess(trace, QUIET_S + number * 2.5, ATTACKER, 50_000 + number, VICTIM)
    report = trace.report()
    assert only(report, "security.brute_force")["severity"] == severity


def test_a_long_session_after_the_guesses_may_be_success() -> None:
    """A session that stays, after twelve that did not, raises the finding and says why."""
    trace = Trace()
    for number in range(12):
        ssh_guess(trace, QUIET_S + number * 3.0, ATTACKER, 50_000 + number, VICTIM)
    ssh_session(trace, 60.0, ATTACKER, 50_100, VICTIM, 12_000, 90_000, 200.0)
    found = only(trace.report(), "security.brute_force")
    assert (found["severity"], found["evidence"]["possible_success"]) == ("high", True)
    assert "may have succeeded" in found["sentence"]


def test_monitors_that_read_a_banner_do_not_guess() -> None:
    """A check of SSH says its version and goes, each twenty seconds; a check of mail leaves when it is greeted."""
    trace = Trace()
    for number in range(60):
        hello = [(False, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), (True, b"SSH-2.0-check_ssh_2.3\r\n")]
        dialogue(trace, number * 20.0, LAN + "3", 50_000 + number, VICTIM, 22, hello)
        mail = [(False, b"220 mail.example ESMTP ready for you\r\n"), (True, b"QUIT\r\n"), (False, b"221 Bye\r\n")]
        dialogue(trace, number * 20.0 + 1, LAN + "3", 51_000 + number, VICTIM, 25, mail)
        dialogue(trace, number * 20.0 + 2, LAN + "3", 52_000 + number, VICTIM, 3306, [])
    assert alarms(trace) == []


def test_backups_and_administrators_do_not_guess() -> None:
    """A backup of twelve folders and a person's dozen sessions differ in size and last."""
    generator = random.Random(4)
    trace = Trace()
    for number in range(12):
        ssh_session(
            trace, number * 20.0, LAN + "4", 50_000 + number, VICTIM, generator.randrange(20_000, 900_000), 4000, 12.0
        )
        ssh_session(
            trace,
            number * 24.0 + 5,
            LAN + "5",
            51_000 + number,
            VICTIM,
            generator.randrange(2_000, 20_000),
            40_000,
            15.0,
        )
    assert alarms(trace) == []


def test_a_mail_client_that_looks_each_minute_does_not_guess() -> None:
    """An hour of short alike IMAP sessions, one a minute, stays below ten in five minutes."""
    trace = Trace()
    for number in range(60):
        trace.session(
            number * 60.0, LAN + "6", 50_000 + number, OUTSIDE, 993, up=bytes(900), down=bytes(5000), lasts=0.4
        )
    assert "security.brute_force" not in alarms(trace)


def test_a_flood_of_the_login_port_is_no_guessing() -> None:
    """SYNs that nobody completes are no logins, however many."""
    trace = Trace()
    household(trace)
    syn_flood(trace, VICTIM, 22, per_s=1500, seconds=4, sources=300)
    assert only(trace.report(), "security.flood.syn")["severity"] == "critical"


def test_unanswered_tries_of_one_source_are_no_guessing() -> None:
    """A client whose server is down tries a hundred times without a single login."""
    trace = Trace()
    for number in range(100):
        unanswered(trace, number * 2.0, LAN + "5", 50_000 + number, VICTIM, 22)
        refused(trace, number * 2.0 + 1, LAN + "5", 52_000 + number, VICTIM, 21)
    assert alarms(trace) == []


def test_refused_web_logins_are_guessing() -> None:
    """Twenty 401 answers in a minute are guesses; nine are not, nor are twenty answers of 200."""
    for count, answer, wanted in ((20, UNAUTHORIZED, ["security.brute_force"]), (9, UNAUTHORIZED, []), (20, OK, [])):
        trace = Trace()
        for number in range(count):
            get(trace, QUIET_S + number * 3.0, ATTACKER, 50_000 + number, VICTIM, answer)
        assert alarms(trace) == wanted


def test_a_refused_first_request_is_part_of_every_web_login() -> None:
    """A client that is asked for its password and then gives it has one refusal for each page, and no guess."""
    trace = Trace()
    token = base64.b64encode(b"admin:open-sesame-77")
    for number in range(20):
        t = QUIET_S + number * 10.0
        get(trace, t, LAN + "20", 50_000 + 2 * number, VICTIM, UNAUTHORIZED)
        get(trace, t + 0.1, LAN + "20", 50_001 + 2 * number, VICTIM, OK, b"Authorization: Basic " + token + b"\r\n")
    assert alarms(trace) == []


def test_lateral_movement_weighs_by_targets() -> None:
    """Sessions to three or five hosts that were never called before are medium and high; two are nothing."""
    for targets, wanted in ((2, []), (3, ["medium"]), (5, ["high"])):
        trace = Trace()
        household(trace)
        for number in range(targets):
            t = QUIET_S + number * 40.0
            trace.session(
                t, ATTACKER, 50_000 + number, f"{LAN}{30 + number}", 3389, up=bytes(900), down=bytes(9000), lasts=20
            )
        found = security(trace.report())
        assert [row["severity"] for row in found] == wanted
        assert {row["kind"] for row in found} <= {"security.lateral"}


def test_lateral_movement_between_global_ipv6_neighbours_is_found() -> None:
    """Hosts of one IPv6 network are neighbours though their addresses are global."""
    trace = Trace()
    household(trace)
    for number in range(5):
        t = QUIET_S + number * 40.0
        source, target = "2001:db8:7:1::66", f"2001:db8:7:1::{30 + number}"
        trace.session(t, source, 50_000 + number, target, 445, up=bytes(900), down=bytes(9000), lasts=20)
    assert alarms(trace) == ["security.lateral"]


def test_moving_on_after_guessing_is_critical() -> None:
    """The host that guessed a password and then goes from host to host is the worst there is."""
    trace = Trace()
    household(trace)
    for number in range(12):
        ssh_guess(trace, QUIET_S + number * 3.0, ATTACKER, 50_000 + number, VICTIM)
    for number in range(4):
        ssh_session(trace, 80.0 + number * 30, ATTACKER, 51_000 + number, f"{LAN}{30 + number}", 4000, 20_000, 20.0)
    report = trace.report()
    assert one(report, "security.lateral")["severity"] == "critical"
    assert sorted(row["kind"] for row in security(report)) == ["security.brute_force", "security.lateral"]


def test_standing_fan_out_and_shares_abroad_are_no_movement() -> None:
    """A station whose sessions were open from the start, and sessions to other networks, are no movement."""
    trace = Trace()
    for number in range(8):
        trace.session(
            number * 0.1,
            LAN + "2",
            50_000 + number,
            f"{LAN}{30 + number}",
            22,
            up=bytes(9000),
            down=bytes(9000),
            lasts=300,
        )
        trace.session(
            QUIET_S + number,
            LAN + "4",
            51_000 + number,
            f"203.0.113.{30 + number}",
            22,
            up=bytes(900),
            down=bytes(9000),
            lasts=30,
        )
    assert "security.lateral" not in alarms(trace)


def test_a_file_server_that_is_called_does_not_move() -> None:
    """Eight clients that open the same server's share are its clients."""
    trace = Trace()
    household(trace)
    for number in range(8):
        trace.session(
            QUIET_S + number * 5,
            f"{LAN}{30 + number}",
            50_000 + number,
            LAN + "2",
            445,
            up=bytes(900),
            down=bytes(9000),
            lasts=30,
        )
    assert alarms(trace) == []


SECRET = "Tr0ub4dor-and-3"
TOKEN = base64.b64encode(f"joe:{SECRET}".encode())
TYPED = SECRET.encode() + b"\r\n"
DIALOGUES: dict[int, list[tuple[bool, bytes]]] = {
    21: [(False, b"220 hi\r\n"), (True, b"USER joe\r\n"), (False, b"331 ok\r\n"), (True, b"PASS " + TYPED)],
    110: [(False, b"+OK hi\r\n"), (True, b"USER joe\r\n"), (False, b"+OK\r\n"), (True, b"PASS " + TYPED)],
    143: [(False, b"* OK hi\r\n"), (True, b"a1 LOGIN joe " + TYPED), (False, b"a1 OK done\r\n")],
    23: [(False, b"\xff\xfd\x18login: "), (True, b"joe\r\n"), (False, b"Password: "), (True, TYPED)],
    80: [(True, b"GET / HTTP/1.1\r\nHost: box\r\nAuthorization: Basic " + TOKEN + b"\r\n\r\n"), (False, OK)],
}


@pytest.mark.parametrize("port", DIALOGUES, ids=["ftp", "pop3", "imap", "telnet", "http-basic"])
def test_a_password_in_clear_is_told_and_never_kept(port: int) -> None:
    """That a password crossed the wire readably is a low finding; the password itself is nowhere in the report."""
    trace = Trace()
    household(trace)
    dialogue(trace, QUIET_S, LAN + "20", 50_000, VICTIM, port, DIALOGUES[port])
    report = trace.report()
    found = only(report, "security.cleartext_login")
    assert (found["severity"], found["hosts"], found["evidence"]["port"]) == ("low", {"target": VICTIM}, port)
    text = json.dumps(report)
    assert SECRET not in text
    assert TOKEN.decode() not in text


def test_an_encrypted_login_is_no_finding() -> None:
    """A mail session that turns to TLS before it logs in shows no password."""
    trace = Trace()
    lines = [
        (False, b"* OK hi\r\n"),
        (True, b"a1 STARTTLS\r\n"),
        (False, b"a1 OK begin\r\n"),
        (True, b"\x16\x03\x01" + bytes(300)),
        (False, b"\x16\x03\x03" + bytes(900)),
    ]
    dialogue(trace, QUIET_S, LAN + "20", 50_000, VICTIM, 143, lines)
    assert alarms(trace, "low") == []
