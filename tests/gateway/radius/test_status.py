"""What is said about servers."""

from __future__ import annotations

import json

import pytest

from gateway.radius.accounting import AccountingQueue
from gateway.radius.channel import Purpose
from gateway.radius.messages import DatagramReceived, LoginSubmitted
from gateway.radius.packets import Code
from gateway.radius.status import describe, warning
from tests.gateway.radius.build import UNIX, EvenRandom, answer, config, exchange, login, sent, server


def test_the_state_of_a_server_is_plain_json() -> None:
    """Breaker, age of the last answer, times, counts and policy of every server and purpose, and the queue."""
    core = exchange(config())
    (request,) = sent(core.receive(LoginSubmitted(login(1), UNIX), 10.0))
    reply = answer(request.data, Code.ACCESS_ACCEPT)
    core.receive(DatagramReceived("one", Purpose.AUTH, request.socket, reply, UNIX), 10.25)
    described = describe(core, AccountingQueue(limit=10, window=10, random=EvenRandom(1)), 12.0)
    assert json.loads(json.dumps(described)) == described
    servers = described["servers"]
    assert isinstance(servers, list)
    auth, acct = servers
    assert (auth["purpose"], acct["purpose"]) == ("auth", "acct")
    assert auth["breaker"] == "closed"
    assert auth["last_answer_age_s"] == 1.75
    assert auth["rtt_p50_s"] == 0.25
    assert auth["requests"] == {"accept": 1}
    assert auth["message_authenticator_demanded"] is True
    assert acct["last_answer_age_s"] is None


@pytest.mark.parametrize(
    ("policy", "learned", "warned"),
    [("auto", False, True), ("auto", True, False), ("require", False, False), ("off", True, True)],
)
def test_forgeable_answers_are_warned_about(policy: str, learned: bool, warned: bool) -> None:
    """A warning stands as long as answers without signature are accepted, and only for authentication."""
    one = server(policy=policy)
    core = exchange(config(one), learned=[f"one@{one.address}"] if learned else [])
    auth, acct = core.channels["one", Purpose.AUTH], core.channels["one", Purpose.ACCT]
    assert bool(warning(auth, demanded=core.demands_signature(auth))) is warned
    assert warning(acct, demanded=False) == ""
