"""The gate with a RADIUS server: what an answer grants, what accounting tells, what happens while nobody answers.

FreeRADIUS 3.2 stands in the Internet's namespace and writes every accounting request into its detail file; radclient
plays the server that speaks first (RFC 5176).
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.netns.freeradius import ClientAnswer, DetailRecord, FreeRadius, radclient, user_entry
from tests.netns.harness import INTERNET4, UPLINK4, WEB4, Guest, Lab, wait_for
from tests.netns.hotspot import Answer, Hotspot

pytestmark = pytest.mark.root
SECRET = "gate-radius-secret"
ZONE = "\tlist method password\n\tlist auth radius\n"
BOTH = "\tlist method password\n\tlist auth local\n\tlist auth radius\n"
LOCAL = "\tlist method password\n\tlist auth local\n"
# The gate must tell a server that went away soon, and look for it often: the tests would wait for minutes otherwise.
QUICK = (
    "config radius\n\toption timeout 0.5\n\toption retries 1\n"
    "\toption circuit_breaker_failure_threshold 1\n\toption circuit_breaker_timeout 1\n"
)
TERMINATE_S = 1000


def users() -> str:
    """The users file; the time at which `full` must end is reckoned from now."""
    end = datetime.now(UTC) + timedelta(seconds=TERMINATE_S)
    return (
        user_entry(
            "full",
            "wonderland",
            "Session-Timeout := 1800",
            "Idle-Timeout := 600",
            "ChilliSpot-Max-Input-Octets := 3000000",
            "ChilliSpot-Max-Output-Octets := 2000000",
            "ChilliSpot-Max-Total-Octets := 4000000",
            f'WISPr-Session-Terminate-Time := "{end:%Y-%m-%dT%H:%M:%SZ}"',
            "Class := 0x01",
            "Class += 0x00ff00",
            "Class += 0x636c617373",
            'Reply-Message := "<b>hello</b> & welcome"',
            'WISPr-Redirection-URL := "https://example.com/welcome"',
            "Acct-Interim-Interval := 120",
        )
        + 'expired Auth-Type := Reject\n\tReply-Message := "<i>Your ticket</i> has expired."\n\n'
        + user_entry("chap", "wonderland", check="Auth-Type := CHAP")
        + user_entry("brief", "wonderland", "Session-Timeout := 4")
        + user_entry("lazy", "wonderland", "Idle-Timeout := 3")
        + user_entry("small", "wonderland", "ChilliSpot-Max-Total-Octets := 200000")
        + user_entry("alice", "wonderland", "Session-Timeout := 3600", "Class := 0x676f6c64")
    )


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests behind one bridge, and the Internet."""
    with Lab("radius", guests_wanted=2) as made:
        made.start_internet()
        yield made


@pytest.fixture
def freeradius(lab: Lab, tmp_path: Path) -> Iterator[FreeRadius]:
    """A RADIUS server in the Internet that signs its answers."""
    with FreeRadius(tmp_path, users(), {str(UPLINK4): SECRET}, namespace=lab.internet) as server:
        yield server


def server(name: str = "one", *, port: int = 1812, more: str = "") -> str:
    """A section for a server in the Internet."""
    return (
        f"config radius_server '{name}'\n\toption address '{INTERNET4}'\n\toption secret '{SECRET}'\n"
        f"\toption auth_port {port}\n\toption acct_port {port + 1}\n{more}"
    )


@pytest.fixture
def hotspot(lab: Lab, freeradius: FreeRadius) -> Iterator[Hotspot]:
    """A gateway that asks that server and nobody else."""
    with Hotspot(lab, zone_options=ZONE, sections=server()) as made:
        yield made


def of_session(freeradius: FreeRadius, session_id: str) -> list[DetailRecord]:
    return [record for record in freeradius.records() if record["Acct-Session-Id"] == session_id]


def kinds(records: Sequence[DetailRecord]) -> list[str]:
    return [record["Acct-Status-Type"] for record in records]


def stop_of(freeradius: FreeRadius, session_id: str) -> DetailRecord:
    """The Stop of a session, which is waited for; there is one Start and one Stop."""

    def told() -> bool:
        return "Stop" in kinds(of_session(freeradius, session_id))

    assert wait_for(told, timeout_s=10), f"no Stop: {of_session(freeradius, session_id)}"
    records = [
        record for record in of_session(freeradius, session_id) if record["Acct-Status-Type"] != "Interim-Update"
    ]
    assert kinds(records) == ["Start", "Stop"]
    return records[1]


def enter(hotspot: Hotspot, guest: Guest, name: str) -> dict[str, Any]:
    """Log a guest in; returns its session as the operator sees it."""
    answer = hotspot.log_in(guest, name, "wonderland")
    assert answer.status == 200, answer
    return hotspot.session(guest)


# -- what an answer means ---------------------------------------------------------------------------------------------


def test_an_accept_is_applied_whole(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """Times, quotas, several Class values, message, address and interval, each where it belongs."""
    guest = lab.guest
    hotspot.lease(guest)
    answer = json.loads(hotspot.log_in(guest, "full", "wonderland").body)
    assert answer["message"] == "<b>hello</b> & welcome"
    assert answer["redirection_url"] == "https://example.com/welcome"
    session = hotspot.session(guest)
    assert TERMINATE_S - 60 < session["seconds_left"] <= TERMINATE_S, "the terminate time comes before the session time"
    limits = session["limits"]
    assert (limits["session_time_s"], limits["idle_time_s"]) == (1800, 600)
    assert (limits["upload_bytes"], limits["download_bytes"], limits["total_bytes"]) == (3000000, 2000000, 4000000)
    assert session["interim_interval_s"] == 120
    page = hotspot.curl(guest, f"{hotspot.portal}/status").body
    assert "&lt;b&gt;hello&lt;/b&gt; &amp; welcome" in page
    assert "<b>hello" not in page
    hotspot.log_out(guest)
    stop = stop_of(freeradius, session["session_id"])
    assert stop.attributes["Class"] == ("0x01", "0x00ff00", "0x636c617373")
    assert int(stop["Acct-Session-Time"]) < 60


def test_the_redirection_address_follows_a_login_by_form(lab: Lab, hotspot: Hotspot) -> None:
    """The form's own way: logged in, the guest is led on, and the message is shown escaped."""
    guest = lab.guest
    hotspot.lease(guest)
    token = hotspot.curl(guest, f"{hotspot.portal}/").field("token")
    fields = [("method", "password"), ("token", token), ("username", "full"), ("password", "wonderland")]
    answer = hotspot.post_form(guest, f"{hotspot.portal}/login", fields)
    assert answer.status == 303
    page = hotspot.curl(guest, answer.location) if answer.location.startswith(hotspot.portal) else answer
    assert "https://example.com/welcome" in page.body + page.location


def test_a_reject_shows_its_message(lab: Lab, hotspot: Hotspot) -> None:
    """In JSON as it is, on the page escaped, and in the timeline with the name of who refused."""
    guest = lab.guest
    hotspot.lease(guest)
    answer = hotspot.log_in(guest, "expired", "wonderland")
    assert answer.status == 401
    assert json.loads(answer.body)["message"] == "<i>Your ticket</i> has expired."
    token = hotspot.curl(guest, f"{hotspot.portal}/").field("token")
    fields = [("method", "password"), ("token", token), ("username", "expired"), ("password", "x")]
    page = hotspot.post_form(guest, f"{hotspot.portal}/login", fields).body
    assert "&lt;i&gt;Your ticket&lt;/i&gt; has expired." in page
    assert "<i>Your" not in page
    assert hotspot.event_texts(guest, "login_failed")[0] == "RADIUS refused: <i>Your ticket</i> has expired."
    assert not hotspot.passes(guest)


def test_chap_carries_the_password_when_configured(lab: Lab, freeradius: FreeRadius) -> None:
    """The server takes this user by CHAP alone."""
    with Hotspot(lab, zone_options=ZONE, sections="config radius\n\toption protocol chap\n" + server()) as hotspot:
        hotspot.lease(lab.guest)
        assert hotspot.log_in(lab.guest, "chap", "looking-glass").status == 401
        assert hotspot.log_in(lab.guest, "chap", "wonderland").status == 200
        assert hotspot.passes(lab.guest)


def test_an_answer_without_message_authenticator_is_refused_in_its_own_words(lab: Lab, tmp_path: Path) -> None:
    """Demanded, it fails the login and says why; not demanded, it is a warning."""
    clients = {str(UPLINK4): SECRET}
    unsigned = FreeRadius(tmp_path, users(), clients, namespace=lab.internet, message_authenticator=False)
    strict = QUICK + server(more="\toption require_message_authenticator require\n")
    with unsigned, Hotspot(lab, zone_options=ZONE, sections=strict) as hotspot:
        hotspot.lease(lab.guest)
        answer = hotspot.log_in(lab.guest, "alice", "wonderland")
        assert answer.status == 504, answer
        assert "Message-Authenticator" in hotspot.log()
        assert "Message-Authenticator" in hotspot.event_texts(lab.guest, "login_failed")[0]
        assert any("Message-Authenticator" in text for text in hotspot.ask("status")["warnings"])
        hotspot.write_config(sections=QUICK + server())
        hotspot.postern("config", "reload")
        assert hotspot.log_in(lab.guest, "alice", "wonderland").status == 200
        assert any("CVE-2024-3596" in text for text in hotspot.ask("status")["warnings"])


# -- while nobody answers ---------------------------------------------------------------------------------------------


def test_a_silent_server_holds_up_nobody_else(lab: Lab, freeradius: FreeRadius) -> None:
    """Its guest is answered within the deadline; another guest's local login and the pages are as quick as ever."""
    sections = "config uam\n\toption login_timeout 8\n" + server()
    with Hotspot(lab, zone_options=BOTH, sections=sections) as hotspot:
        patient, other = lab.guests
        hotspot.add_user("bob", "builder-bob")
        hotspot.lease(patient)
        hotspot.lease(other)
        freeradius.pause()
        try:
            answers: list[tuple[Answer, float]] = []

            def wait() -> None:
                began = time.monotonic()
                answers.append((hotspot.log_in(patient, "alice", "wonderland"), time.monotonic() - began))

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.3)
            assert hotspot.log_in(other, "bob", "builder-bob").status == 200
            assert hotspot.curl(other, f"{hotspot.portal}/status").status == 200
            assert hotspot.curl(patient, f"{hotspot.portal}/").status == 200
            assert not answers, "all that happened while the first guest still waited"
            waiting.join(30)
            (answer, took_s) = answers[0]
            assert answer.status == 504
            assert json.loads(answer.body)["error"] == "timeout"
            assert took_s < 10, "within the deadline of a login, and something for a busy machine"
            assert hotspot.event_texts(patient, "login_failed")
        finally:
            freeradius.resume()
        assert wait_for(lambda: hotspot.log_in(patient, "alice", "wonderland").status == 200, timeout_s=30)


def test_a_second_server_takes_over(lab: Lab, freeradius: FreeRadius, tmp_path: Path) -> None:
    """Logins and accounting go to the second server while the first is away, and nobody is refused."""
    second = FreeRadius(
        tmp_path / "second", users(), {str(UPLINK4): SECRET}, namespace=lab.internet, auth_port=2812, acct_port=2813
    )
    sections = (
        "config radius\n\toption timeout 0.5\n\toption retries 1\n"
        + server(more="\toption priority 1\n")
        + server("two", port=2812, more="\toption priority 2\n")
    )
    with second, Hotspot(lab, zone_options=ZONE, sections=sections) as hotspot:
        guest = lab.guest
        hotspot.lease(guest)
        first_session = enter(hotspot, guest, "alice")["session_id"]
        assert wait_for(lambda: kinds(of_session(freeradius, first_session)) == ["Start"])
        freeradius.stop()
        hotspot.log_out(guest)
        assert wait_for(lambda: kinds(of_session(second, first_session)) == ["Stop"], timeout_s=20)
        session = enter(hotspot, guest, "alice")["session_id"]
        assert hotspot.passes(guest)
        assert wait_for(lambda: kinds(of_session(second, session)) == ["Start"], timeout_s=20)
        hotspot.log_out(guest)
        assert stop_of(second, session)["Acct-Terminate-Cause"] == "User-Request"


# -- accounting -------------------------------------------------------------------------------------------------------


def test_every_end_has_its_cause(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """One guest, eight sessions, each ended in another way."""
    guest = lab.guest
    hotspot.lease(guest)

    def out() -> None:
        assert hotspot.log_out(guest).status == 200

    def kick() -> None:
        hotspot.postern("sessions", "kick", str(guest.mac))

    def fetch() -> None:
        hotspot.curl(guest, f"http://{WEB4}/bytes/400000", "-o", "/dev/null", limit_s=3)

    def give_back() -> None:
        hotspot.postern("leases", "release", str(guest.mac))

    def disconnect() -> None:
        told = dynauth(lab, "disconnect", f'Acct-Session-Id = "{hotspot.session(guest)["session_id"]}"')
        assert told.code == "Disconnect-ACK"

    stories = (
        ("alice", out, "User-Request"),
        ("alice", kick, "Admin-Reset"),
        ("brief", lambda: None, "Session-Timeout"),
        ("lazy", lambda: None, "Idle-Timeout"),
        ("small", fetch, "Session-Timeout"),
        ("alice", disconnect, "Admin-Reset"),
        ("alice", give_back, "Lost-Carrier"),
    )
    for name, end, cause in stories:
        session = enter(hotspot, guest, name)["session_id"]
        end()
        stop = stop_of(freeradius, session)
        assert stop["Acct-Terminate-Cause"] == cause, name
        assert stop["User-Name"] == name
        assert stop["Framed-IP-Address"] == str(guest.address)
        assert stop["Calling-Station-Id"] == guest.mac.dashed()
        assert {"Acct-Input-Gigawords", "Acct-Output-Gigawords", "Event-Timestamp"} <= set(stop.attributes)
        assert not hotspot.passes(guest)


def test_octets_are_those_that_the_kernel_counted(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """The Stop agrees to the octet with a count of the same packets at the other end of the uplink."""
    lab.run(
        lab.internet,
        ["nft", "-f", "-"],
        stdin="""
        table inet count {
          counter up {}
          counter down {}
          chain in {
            type filter hook input priority 0
            ip saddr 198.18.0.2 tcp dport { 80, 8080 } counter name up
          }
          chain out {
            type filter hook output priority 0
            ip daddr 198.18.0.2 tcp sport { 80, 8080 } counter name down
          }
        }""",
    )
    guest = lab.guest
    hotspot.lease(guest)
    session = enter(hotspot, guest, "alice")["session_id"]
    hotspot.curl(guest, f"http://{WEB4}/bytes/1234567", "-o", "/dev/null")
    body = hotspot.directory / "body"
    body.write_bytes(bytes(345_678))
    hotspot.curl(guest, f"http://{WEB4}:8080/", "--data-binary", f"@{body}")
    time.sleep(0.5)  # the last acknowledgements
    hotspot.log_out(guest)
    stop = stop_of(freeradius, session)
    counters = json.loads(lab.run(lab.internet, ["nft", "-j", "list", "counters"]).stdout)["nftables"]
    seen = {row["counter"]["name"]: row["counter"]["bytes"] for row in counters if "counter" in row}
    assert int(stop["Acct-Input-Octets"]) == seen["up"] > 345_678
    assert int(stop["Acct-Output-Octets"]) == seen["down"] > 1_234_567
    assert int(stop["Acct-Input-Gigawords"]) == int(stop["Acct-Output-Gigawords"]) == 0


def test_an_interim_record_says_what_was_used_so_far(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """A change by CoA brings one at once; its counters are those of the moment."""
    guest = lab.guest
    hotspot.lease(guest)
    session = enter(hotspot, guest, "full")["session_id"]
    hotspot.curl(guest, f"http://{WEB4}/bytes/500000", "-o", "/dev/null")
    told = dynauth(lab, "coa", f'Acct-Session-Id = "{session}"', "Session-Timeout = 900")
    assert told.code == "CoA-ACK"
    assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start", "Interim-Update"])
    interim = of_session(freeradius, session)[1]
    assert int(interim["Acct-Output-Octets"]) > 500_000
    hotspot.log_out(guest)
    stop = stop_of(freeradius, session)
    assert int(stop["Acct-Output-Octets"]) >= int(interim["Acct-Output-Octets"])


def check_each_once(records: Sequence[DetailRecord], sessions: Sequence[str]) -> None:
    """One distinct Start and one distinct Stop for each session; what came twice came alike."""
    versions: dict[tuple[str, str], set[frozenset[tuple[str, tuple[str, ...]]]]] = defaultdict(set)
    for record in records:
        fixed = ((name, values) for name, values in record.attributes.items() if name not in VOLATILE)
        versions[record["Acct-Session-Id"], record["Acct-Status-Type"]].add(frozenset(fixed))
    for session in sessions:
        for kind in ("Start", "Stop"):
            assert len(versions[session, kind]) == 1, f"{kind} of {session}: {versions[session, kind]}"


# Differs from one sending to the next by right (RFC 2866 §5.2), follows from that, or is the server's own.
VOLATILE = frozenset({"Acct-Delay-Time", "Message-Authenticator", "Timestamp"})


@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_no_record_is_lost_while_the_server_is_away(lab: Lab, freeradius: FreeRadius, killed: bool) -> None:
    """Users come and go, the daemon is killed in the midst of it; afterwards the server knows of everybody once."""
    with Hotspot(lab, zone_options=LOCAL, sections=QUICK + server()) as hotspot:
        hotspot.add_user("alice", "wonderland")
        first, second = lab.guests
        hotspot.lease(first)
        hotspot.lease(second)
        sessions = [enter(hotspot, first, "alice")["session_id"]]
        assert wait_for(lambda: "Start" in kinds(freeradius.records()))
        freeradius.stop()
        hotspot.log_out(first)
        for guest in (first, second, first):
            sessions.append(enter(hotspot, guest, "alice")["session_id"])
            hotspot.log_out(guest)
        sessions.append(enter(hotspot, second, "alice")["session_id"])
        time.sleep(5)  # so late that a record must say how late it is
        if killed:
            hotspot.stop_daemon(signal.SIGKILL)
            hotspot.start_daemon()
            hotspot.wait_for_portal()
            assert hotspot.state(second) == "online"
        freeradius.start()
        assert wait_for(lambda: hotspot.ask("radius", "status")["queue"]["length"] == 0, timeout_s=60, every_s=0.3)
        hotspot.log_out(second)
        stop_of(freeradius, sessions[-1])
        check_each_once(freeradius.records(), sessions)
        late = [record for record in freeradius.records() if record["Acct-Session-Id"] in sessions[1:-1]]
        assert len(late) == 6
        # A Start that was under way when the server went is repeated octet for octet; what was made later says how late
        # it is.
        stops = [record for record in late if record["Acct-Status-Type"] == "Stop"]
        assert all(int(record["Acct-Delay-Time"]) >= 4 for record in stops)
        assert all(record["Event-Timestamp"] for record in late)


def test_a_record_whose_answer_was_lost_comes_again_unchanged(lab: Lab, freeradius: FreeRadius) -> None:
    """The server wrote it down, its answer never came, the daemon was killed: the repetition says the same."""
    with Hotspot(lab, zone_options=ZONE, sections=QUICK + server()) as hotspot:
        guest = lab.guest
        hotspot.lease(guest)
        session = enter(hotspot, guest, "alice")["session_id"]
        assert wait_for(lambda: kinds(of_session(freeradius, session)) == ["Start"])
        lab.run(
            lab.internet,
            ["nft", "-f", "-"],
            stdin="table ip lose { chain out { type filter hook output priority 0; udp sport 1813 drop; }; }",
        )
        hotspot.curl(guest, f"http://{WEB4}/bytes/50000", "-o", "/dev/null")
        hotspot.log_out(guest)
        assert wait_for(lambda: "Stop" in kinds(of_session(freeradius, session)))
        hotspot.stop_daemon(signal.SIGKILL)
        lab.run(lab.internet, ["nft", "delete", "table", "ip", "lose"])
        time.sleep(1.1)
        hotspot.start_daemon()
        assert wait_for(lambda: hotspot.ask("radius", "status")["queue"]["length"] == 0, timeout_s=30)
        records = of_session(freeradius, session)
        assert kinds(records).count("Stop") >= 2
        assert int(records[-1]["Acct-Delay-Time"]) >= 1
        check_each_once(records, [session])


# -- the server speaks first ------------------------------------------------------------------------------------------


def dynauth(lab: Lab, kind: str, *attributes: str, secret: str = SECRET) -> ClientAnswer:
    """Ask the gateway from where the RADIUS server is."""
    place = f"{UPLINK4}:3799"
    return radclient(place, kind, secret, attributes, namespace=lab.internet, retries=1, timeout_s=1.5)


def test_changes_take_effect_at_once(lab: Lab, hotspot: Hotspot, freeradius: FreeRadius) -> None:
    """Time and quota of a live session; and a disconnect closes the gate before it is acknowledged."""
    guest = lab.guest
    hotspot.lease(guest)
    session = enter(hotspot, guest, "alice")["session_id"]
    named = f'Acct-Session-Id = "{session}"'
    assert dynauth(lab, "coa", named, "Session-Timeout = 500").code == "CoA-ACK"
    assert 480 < hotspot.session(guest)["seconds_left"] <= 500
    hotspot.curl(guest, f"http://{WEB4}/bytes/300000", "-o", "/dev/null")
    assert hotspot.state(guest) == "online"
    assert dynauth(lab, "coa", named, "ChilliSpot-Max-Total-Octets = 100000").code == "CoA-ACK"
    assert wait_for(lambda: hotspot.state(guest) == "held", timeout_s=4)
    assert stop_of(freeradius, session)["Acct-Terminate-Cause"] == "Session-Timeout"
    assert "total quota is used up" in hotspot.event_texts(guest, "gate_closed")[-1]

    session = enter(hotspot, guest, "alice")["session_id"]
    assert dynauth(lab, "coa", f'Acct-Session-Id = "{session}"', "Session-Timeout = 2").code == "CoA-ACK"
    assert wait_for(lambda: hotspot.state(guest) == "held", timeout_s=6)
    assert not hotspot.passes(guest)

    enter(hotspot, guest, "alice")
    assert (
        dynauth(lab, "disconnect", f'Calling-Station-Id = "{guest.mac}"', "User-Name = alice").code == "Disconnect-ACK"
    )
    assert not hotspot.passes(guest)
    assert "RADIUS server" in hotspot.event_texts(guest, "gate_closed")[-1]


def test_orders_that_cannot_be_followed_are_refused_or_dropped(lab: Lab, hotspot: Hotspot) -> None:
    """An unknown session is said to be unknown; a wrong secret, an old request and a guest get no answer."""
    guest = lab.guest
    hotspot.lease(guest)
    named = f'Acct-Session-Id = "{enter(hotspot, guest, "alice")["session_id"]}"'
    unknown = dynauth(lab, "disconnect", 'Acct-Session-Id = "00000000-00000000"')
    assert unknown.code == "Disconnect-NAK"
    assert "Session-Context-Not-Found" in unknown.text
    assert dynauth(lab, "coa", 'User-Name = "nobody"', "Session-Timeout = 5").code == "CoA-NAK"
    assert dynauth(lab, "disconnect", named, secret="another-secret").code == ""
    assert dynauth(lab, "disconnect", named, 'Event-Timestamp = "Jan 1 2020 00:00:00 UTC"').code == ""
    now = datetime.now(UTC).strftime("%b %d %Y %H:%M:%S UTC")
    by_guest = radclient("10.41.0.1:3799", "disconnect", SECRET, [named], namespace=guest.netns, retries=1, timeout_s=1)
    assert by_guest.code == "", "guests reach no such port"
    assert hotspot.state(guest) == "online"
    assert dynauth(lab, "disconnect", named, f'Event-Timestamp = "{now}"').code == "Disconnect-ACK"
    assert hotspot.state(guest) == "held"


def test_a_repeated_order_gets_the_same_answer_and_happens_once(lab: Lab, hotspot: Hotspot) -> None:
    """The answer was lost, the server asks again octet for octet: the new session of the guest lives on."""
    guest = lab.guest
    hotspot.lease(guest)
    enter(hotspot, guest, "alice")
    order = disconnect_request("alice", SECRET.encode())
    with lab.inside(lab.internet):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(5)
        asking.connect((str(UPLINK4), 3799))
        asking.send(order)
        first = asking.recv(4096)
        assert first[0] == 41, "Disconnect-ACK"
        enter(hotspot, guest, "alice")
        asking.send(order)
        assert asking.recv(4096) == first
    assert hotspot.state(guest) == "online"


def disconnect_request(username: str, secret: bytes) -> bytes:
    """A Disconnect-Request as octets (RFC 5176 §2.3)."""
    attribute = bytes((1, 2 + len(username))) + username.encode()
    head = struct.pack("!BBH", 40, 77, 20 + len(attribute))
    return head + hashlib.md5(head + bytes(16) + attribute + secret).digest() + attribute


# -- looking on -------------------------------------------------------------------------------------------------------


def test_prometheus_gets_the_metrics(lab: Lab, hotspot: Hotspot) -> None:
    """The exporter runs beside the daemon without any power, and says so while the daemon is away."""
    hotspot.lease(lab.guest)
    enter(hotspot, lab.guest, "alice")
    setpriv = ["setpriv", "--reuid", "daemon", "--regid", "nogroup", "--clear-groups"]
    command = [sys.executable, "-m", "gateway.metrics_http", "--socket", str(hotspot.socket)]
    exporter = lab.popen(lab.gateway, [*setpriv, *command, "--listen", "127.0.0.1:2112"])

    def scrape() -> str:
        return lab.run(lab.gateway, ["curl", "-sS", "http://127.0.0.1:2112/metrics"], check=False).stdout

    assert wait_for(lambda: "chilli_sessions_active" in scrape(), timeout_s=20, every_s=0.2), scrape()
    page = scrape()
    assert re.search(r"^chilli_sessions_active 1(\.0)?$", page, re.MULTILINE)
    assert re.search(r"^process_resident_memory_bytes \d", page, re.MULTILINE)
    hotspot.stop_daemon(signal.SIGKILL)
    assert "posternd" in scrape()
    hotspot.start_daemon()
    assert re.search(r"^chilli_sessions_active 1(\.0)?$", scrape(), re.MULTILINE), "no restart of the exporter"
    assert hotspot.curl(lab.guest, "http://10.41.0.1:2112/metrics", limit_s=2).status == 0
    lab.stop(exporter)
