"""Vouchers as guests and operators meet them: the real daemon, portal and kernel.

Codes are made by the command, typed into the form that the redirect leads to, and end by time, quota, or the operator's
word; a device that is remembered comes back over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.netns.harness import WEB4, Guest, Lab, wait_for
from tests.netns.hotspot import Answer, Hotspot

pytestmark = pytest.mark.root
METHODS = "\tlist method voucher\n\tlist method password\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two guests behind one bridge, and the Internet."""
    with Lab("vouch", guests_wanted=2) as made:
        made.start_internet()
        yield made


@pytest.fixture
def hotspot(lab: Lab) -> Iterator[Hotspot]:
    """A gateway that takes vouchers, and passwords below them, and remembers devices for a day."""
    with Hotspot(lab, zone_options=f"{METHODS}\toption remember 24\n") as made:
        yield made


def make(hotspot: Hotspot, count: int, *options: str) -> list[str]:
    """A batch of vouchers; returns their codes as printed."""
    return hotspot.postern("vouchers", "create", str(count), *options).stdout.split()


def use(hotspot: Hotspot, guest: Guest, code: str) -> Answer:
    """Open any page, follow the redirect to the login, type the code, send the form."""
    away = hotspot.curl(guest, "http://example.com/some/page")
    assert away.status == 302
    page = hotspot.curl(guest, away.location)
    assert page.status == 200
    assert page.body.index('name="code"') < page.body.index('name="password"'), "in the operator's order"
    fields = [("method", "voucher"), ("token", page.field("token")), ("u", page.field("u")), ("code", code)]
    return hotspot.post_form(guest, f"{hotspot.portal}/login", fields)


def closed(hotspot: Hotspot, guest: Guest) -> str:
    """Why the guest's last session ended."""
    return hotspot.event_texts(guest, "gate_closed")[-1]


def test_a_voucher_from_the_printer_to_its_end(lab: Lab, hotspot: Hotspot) -> None:
    """Typed as people type, refused on a second device, used up over two logins, and then good for nothing."""
    first, second = lab.guests
    for guest in lab.guests:
        hotspot.lease(guest)
    code, spare = make(hotspot, 2, "--total", "900k", "--note", "bar")
    assert len(code) == 11
    entered = use(hotspot, first, f" {code.replace('-', ' ')}")
    assert entered.status == 303
    assert hotspot.passes(first)
    status = hotspot.curl(
        first,
        f"http://status.postern.lan{urlsplit(entered.location).path}",
        "--resolve",
        f"status.postern.lan:80:{lab.zones[0].address.ip}",
        "-L",
    )
    assert "Voucher" in status.body
    assert "1-1" in status.body
    assert "Data left" in status.body
    assert code not in status.body
    refused = use(hotspot, second, code)
    assert "already in use on as many devices" in refused.body
    hotspot.curl(first, f"http://{WEB4}/bytes/400000", "-o", "/dev/null")
    hotspot.log_out(first)
    assert use(hotspot, second, code).status == 303, "the place is free, and what is left is left"
    left = json.loads(hotspot.curl(second, f"{hotspot.portal}/api/v1/status").body)["bytes_left"]
    assert left < 500_000
    hotspot.curl(second, f"http://{WEB4}/bytes/600000", "-o", "/dev/null", limit_s=4)
    assert wait_for(lambda: hotspot.state(second) == "held", timeout_s=9)
    assert "total quota is used up" in closed(hotspot, second)
    assert not hotspot.passes(second)
    assert "This voucher is used up" in use(hotspot, second, code).body
    rows = {row["id"]: row for row in hotspot.ask("vouchers", "list")["rows"]}
    assert rows["1-1"]["state"] == "used-up"
    assert rows["1-1"]["code"] == code
    assert {str(first.mac), str(second.mac)} == set(rows["1-1"]["devices"])
    assert rows["1-2"]["state"] == "unused"
    assert rows["1-2"]["code"] == spare
    assert code.replace("-", "") not in hotspot.log()
    assert code not in hotspot.log()


def test_time_and_the_operator_end_a_voucher(lab: Lab, hotspot: Hotspot) -> None:
    """The time online ends the session; a revoked code lets nobody in and throws out who is in."""
    first, second = lab.guests
    for guest in lab.guests:
        hotspot.lease(guest)
    (short,) = make(hotspot, 1, "--session-time", "4")
    assert use(hotspot, first, short).status == 303
    assert wait_for(lambda: hotspot.state(first) == "held", timeout_s=9)
    assert "session time is over" in closed(hotspot, first)
    assert "This voucher is used up" in use(hotspot, first, short).body
    taken, fresh = make(hotspot, 2, "--letters")
    assert use(hotspot, second, taken.lower()).status == 303
    assert "revoked 2 vouchers, ended 1 session" in hotspot.postern("vouchers", "revoke", "2", "--end-sessions").stdout
    assert not hotspot.passes(second)
    assert "no longer valid" in use(hotspot, second, fresh).body
    wrong = use(hotspot, first, "00000-00000")
    assert "There is no voucher with this code" in wrong.body
    assert "character by character" in wrong.body


def test_a_remembered_device_comes_back_over_a_restart(lab: Lab, hotspot: Hotspot) -> None:
    """With its next address, without the page, with what is left; after a logout it sees the page again."""
    guest = lab.guest
    hotspot.lease(guest)
    (code,) = make(hotspot, 1, "--session-time", "1h", "--valid-for", "7d")
    assert use(hotspot, guest, code).status == 303
    hotspot.postern("leases", "release", str(guest.mac))
    assert not hotspot.passes(guest)
    hotspot.stop_daemon()
    hotspot.start_daemon()
    hotspot.wait_for_portal()
    hotspot.lease(guest)
    assert wait_for(lambda: hotspot.state(guest) == "online", timeout_s=5)
    assert hotspot.passes(guest)
    shown = hotspot.session(guest)
    assert shown["method"] == "voucher"
    assert shown["username"] == "voucher-1-1"
    assert shown["seconds_left"] <= 3600
    hotspot.log_out(guest)
    hotspot.postern("leases", "release", str(guest.mac))
    hotspot.lease(guest)
    assert hotspot.curl(guest, "http://example.com/").status == 302
    assert hotspot.state(guest) == "held"


def test_a_printed_link_fills_the_code_in(lab: Lab, hotspot: Hotspot) -> None:
    """By the portal's own name on port 80, as a camera opens it; nothing is sent until the guest says so."""
    guest = lab.guest
    hotspot.lease(guest)
    (code,) = make(hotspot, 1)
    url = hotspot.ask("vouchers", "batches")["login_url"] + code
    resolve = f"{urlsplit(url).hostname}:{{}}:{lab.zones[0].address.ip}"
    page = hotspot.curl(guest, url, "-L", "--resolve", resolve.format(80), "--resolve", resolve.format(3990))
    assert f'value="{code}"' in page.body
    assert not hotspot.passes(guest)


def test_a_blocked_device_gets_nothing_at_once_and_after_a_restart(lab: Lab, hotspot: Hotspot) -> None:
    """Its session ends, its packets are dropped; unblocked it begins anew."""
    guest, other = lab.guests
    hotspot.add_user("alice", "wonderland")
    for one in lab.guests:
        hotspot.lease(one)
        hotspot.log_in(one, "alice", "wonderland")
    assert hotspot.passes(guest)
    assert hotspot.call("clients.block", mac=str(guest.mac), note="torrents")["ended"] == 1
    assert not hotspot.passes(guest)
    assert hotspot.curl(guest, f"{hotspot.portal}/", limit_s=2).status == 0, "no portal either"
    assert hotspot.passes(other), "nobody else notices"
    hotspot.stop_daemon()
    hotspot.start_daemon()
    hotspot.wait_for_portal()
    assert hotspot.curl(guest, f"{hotspot.portal}/", limit_s=2).status == 0
    assert hotspot.passes(other)
    assert [row["note"] for row in hotspot.call("clients.blocked")["rows"]] == ["torrents"]
    hotspot.call("clients.unblock", mac=str(guest.mac))
    assert wait_for(lambda: hotspot.curl(guest, f"{hotspot.portal}/", limit_s=2).status == 200, timeout_s=8)


def test_limits_and_accounts_change_live(lab: Lab, hotspot: Hotspot) -> None:
    """More time for a session, and an account that is switched off with its sessions."""
    guest = lab.guest
    hotspot.add_user("alice", "wonderland", "--session-time", "1h")
    hotspot.lease(guest)
    hotspot.log_in(guest, "alice", "wonderland")
    changed = hotspot.call("sessions.change", client=str(guest.mac), extend_s=3600, total_bytes=200_000)
    assert changed["seconds_left"] in range(7100, 7201)
    hotspot.curl(guest, f"http://{WEB4}/bytes/300000", "-o", "/dev/null", limit_s=4)
    assert wait_for(lambda: hotspot.state(guest) == "held", timeout_s=9)
    hotspot.log_in(guest, "alice", "wonderland")
    assert hotspot.call("users.change", username="ALICE", disabled=True, end_sessions=True)["ended"] == 1
    refused = json.loads(hotspot.log_in(guest, "alice", "wonderland").body)
    assert refused.get("reason") == "disabled", refused
