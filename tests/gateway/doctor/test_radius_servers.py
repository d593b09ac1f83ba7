"""RADIUS servers and the accounting queue, judged from what they said and what is known."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.config import RadiusServer, Secret
from gateway.doctor.radius_servers import Asked, Outcome, Past, judge_queue, judge_server
from gateway.doctor.rows import State

SERVER = RadiusServer(name="main", address=IPv4Address("192.0.2.10"), secret=Secret("correct-horse"))
WELL = Past("closed", "", 20.0)
LEFT_ALONE = Past("open", "main did not answer 3 requests", 500.0)


@pytest.mark.parametrize(
    ("purpose", "outcome", "past", "state", "words"),
    [
        ("auth", Outcome.SIGNED, None, State.OK, "with Message-Authenticator"),
        ("auth", Outcome.UNSIGNED, WELL, State.WARN, "CVE-2024-3596"),
        ("acct", Outcome.UNSIGNED, WELL, State.OK, "192.0.2.10:1813 answers"),
        ("auth", Outcome.WRONG, WELL, State.FAIL, "does not verify"),
        ("auth", Outcome.REFUSED, WELL, State.FAIL, "Nobody listens"),
        ("auth", Outcome.SILENCE, LEFT_ALONE, State.FAIL, "did not answer 3 requests"),
        ("auth", Outcome.SILENCE, WELL, State.OK, "not Status-Server, but it answered a request 20 s ago"),
        ("auth", Outcome.SILENCE, Past("closed", "", 5000.0), State.FAIL, "nor any request lately"),
        ("auth", Outcome.SILENCE, None, State.FAIL, "nor any request lately"),
        ("auth", Outcome.NOT_ASKED, WELL, State.OK, "it answered a request"),
        ("auth", Outcome.NOT_ASKED, None, State.SKIPPED, "not asked with Status-Server"),
    ],
)
def test_one_server(purpose: str, outcome: Outcome, past: Past | None, state: State, words: str) -> None:
    """What it said just now comes first; a server that is silent is judged by its answers to real requests."""
    row = judge_server(Asked(SERVER, purpose, outcome, 0.02, "the reason."), past)
    assert row.state is state
    assert words in row.text
    assert bool(row.remedy) is (state is not State.OK)
    assert "correct-horse" not in row.text + row.remedy


@pytest.mark.parametrize(
    ("queue", "state"),
    [
        ({"length": 3, "outage": False, "dropped": 0}, State.OK),
        ({"length": 60, "outage": False, "dropped": 0}, State.WARN),
        ({"length": 3, "outage": True, "dropped": 0}, State.WARN),
        ({"length": 100, "outage": True, "dropped": 5}, State.FAIL),
    ],
)
def test_the_accounting_queue(queue: dict[str, object], state: State) -> None:
    """Waiting warns, dropping fails; without a server there is none."""
    assert judge_queue([SERVER], queue, 100).state is state
    assert judge_queue([], queue, 100).state is State.SKIPPED
