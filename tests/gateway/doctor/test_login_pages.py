"""Answers to the systems' probes, and whether a login page opens after them."""

from __future__ import annotations

import pytest

from gateway.config import Config, Zone
from gateway.doctor.login_pages import PROBES, Answer, judge_pages, objection
from gateway.doctor.probes import read_answer
from gateway.doctor.rows import State
from webui.portal.probes import success_answer
from webui.portal.redirect import to_portal

ZONE = Zone(name="guest", interface="br-guest")
CONFIG = Config(zones=(ZONE,))
GOOD = Answer(302, "http://10.41.0.1:3990/?u=http://x/", "no-store", 200)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (GOOD, ""),
        (Answer(303, "http://login.postern.lan:3990/", "no-store", 200), ""),
        (None, "not asked"),
        (Answer(0, trouble="Connection refused"), "Connection refused"),
        (Answer(204), "as if the Internet were open"),
        (Answer(200, body_octets=30), "as if the Internet were open"),
        (Answer(403), "answered with 403"),
        (Answer(302, "http://example.com/", "no-store", 200), "not the portal"),
        (Answer(302, "http://10.41.0.1/", "no-store", 200), "not the portal"),
        (Answer(302, "http://[bad", "no-store", 200), "not the portal"),
        (Answer(302, GOOD.location, "no-store", 0), "empty page"),
        (Answer(302, GOOD.location, "", 200), "no-store"),
    ],
)
def test_which_answers_open_a_page(answer: Answer | None, words: str) -> None:
    """A redirect to our own portal does, everything else is told with its reason."""
    found = objection(CONFIG, ZONE, answer)
    assert words in found
    assert bool(found) is bool(words)


def test_each_system_has_a_row_and_only_the_one_that_fails_is_blamed() -> None:
    """One probe that is let through fails the row of its system."""
    answers = dict.fromkeys(PROBES, GOOD)
    rows = judge_pages(CONFIG, {"guest": answers})
    assert {row.state for row in rows} == {State.OK}
    assert len(rows) == 1 + len({probe.system for probe in PROBES})
    apple = next(probe for probe in PROBES if probe.host == "captive.apple.com")
    blamed = [row for row in judge_pages(CONFIG, {"guest": answers | {apple: Answer(200)}}) if row.state is State.FAIL]
    assert [row.check for row in blamed] == ["login page: iPhone, iPad and Mac"]


def test_without_a_portal_the_systems_are_not_blamed() -> None:
    """One failure for the portal, the rest is skipped."""
    portal, *systems = judge_pages(CONFIG, {"guest": {PROBES[0]: Answer(0, trouble="Connection refused")}})
    assert portal.state is State.FAIL
    assert "Connection refused" in portal.text
    assert {row.state for row in systems} == {State.SKIPPED}


def test_every_probe_is_one_that_the_portal_knows() -> None:
    """What the doctor asks is what the portal answers for those who are online, or a page that systems open."""
    opened = ("www.msftconnecttest.com", "/redirect")
    for probe in PROBES:
        assert (probe.host, probe.path) == opened or success_answer(probe.host, probe.path) is not None, probe


def test_the_portals_own_redirect_is_read_and_found_good() -> None:
    """The answer that the portal makes is one that opens a page."""
    made = to_portal("http://10.41.0.1:3990", "http://captive.apple.com/hotspot-detect.html")
    head = "".join(f"{name}: {value}\r\n" for name, value in made.headers)
    assert isinstance(made.body, bytes)
    answer = read_answer(f"HTTP/1.1 {made.status} Found\r\n{head}\r\n".encode() + made.body)
    assert objection(CONFIG, ZONE, answer) == ""
    assert read_answer(b"SSH-2.0-dropbear\r\n").status == 0
    assert read_answer(b"").status == 0
