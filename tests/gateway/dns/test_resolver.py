"""The resolver core: conversations of guests, resolvers and forgers, without a socket."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from gateway.config import Endpoint
from gateway.dns.events import (
    Action,
    CloseClient,
    CloseLane,
    Complain,
    LaneFailed,
    OpenLane,
    QueryReceived,
    ResponseReceived,
    SendAnswer,
    SendQuery,
    Settings,
    SettingsChanged,
    UpstreamsChanged,
)
from gateway.dns.names import LocalNames
from gateway.dns.resolver import Resolver
from gateway.dns.upstreams import LANE_AGE_S, LANE_QUERIES, MAX_LANES, UDP_LANES, ReplyPath
from tests.gateway.dns.messages import opt, query, rcode_of, response

FIRST = Endpoint(ip_address("192.0.2.1"), 53)
SECOND = Endpoint(ip_address("192.0.2.2"), 53)
NAMES = LocalNames(("login.postern.lan", "status.postern.lan"), {"guest": IPv4Address("10.41.0.1")}, 30)
SETTINGS = Settings(NAMES, timeout_s=3.0, max_pending=100, client_rate=20.0, client_burst=50)


class Box:
    """A core with the sockets that it ordered, and what it sent."""

    def __init__(self, settings: Settings = SETTINGS, *endpoints: Endpoint, seed: int = 1) -> None:
        self.core = Resolver(settings, random.Random(seed).getrandbits)
        self.lanes: dict[int, OpenLane] = {}
        self.sent: list[SendQuery] = []
        self.answers: list[SendAnswer] = []
        self.closed_clients: list[CloseClient] = []
        self.complaints: list[Complain] = []
        self.endpoints_asked: list[Endpoint] = []
        self.perform(self.core.receive(UpstreamsChanged(endpoints or (FIRST, SECOND)), 0.0))

    def perform(self, actions: list[Action]) -> None:
        """Keep the books as the shell would."""
        for action in actions:
            match action:
                case OpenLane():
                    assert action.lane not in self.lanes
                    self.lanes[action.lane] = action
                case CloseLane():
                    del self.lanes[action.lane]
                case SendQuery():
                    self.sent.append(action)
                    self.endpoints_asked.append(self.lanes[action.lane].endpoint)
                case SendAnswer():
                    self.answers.append(action)
                case CloseClient():
                    self.closed_clients.append(action)
                case Complain():
                    self.complaints.append(action)

    def ask(
        self, data: bytes, now: float = 1.0, *, client: str = "10.41.0.9", port: int = 5000, tcp: bool = False
    ) -> None:
        """A guest asks."""
        reply_to = ReplyPath(port) if tcp else ReplyPath(1, (client, port))
        self.perform(self.core.receive(QueryReceived("guest", client, reply_to, tcp, data), now))

    def reply(self, data: bytes, now: float = 1.1, *, at: int = -1) -> None:
        """A resolver answers through the lane of the query sent as number `at`."""
        self.perform(self.core.receive(ResponseReceived(self.sent[at].lane, data), now))

    def fail(self, now: float = 1.1, *, at: int = -1, unreachable: bool = True) -> None:
        """The lane of the query sent as number `at` is gone."""
        lane = self.sent[at].lane
        self.lanes.pop(lane, None)
        self.perform(self.core.receive(LaneFailed(lane, unreachable), now))

    def tick(self, now: float) -> None:
        """Time passes."""
        self.perform(self.core.tick(now))


def test_a_query_passes_unchanged_but_for_its_id_and_so_does_the_answer() -> None:
    """EDNS, DO, cookies, unknown types and mixed case pass octet for octet both ways."""
    box = Box()
    asked = query("eXaMple.NET", 65, additional=(opt(4096, dnssec_ok=True, options=b"\0\x0a\0\x08cookie!!"),))
    box.ask(asked)
    assert box.sent[0].data[2:] == asked[2:]
    assert box.sent[0].data[:2] != asked[:2]
    answer = box.sent[0].data[:2] + b"\x81\xa0" + asked[4:] + b"anything may stand here"
    box.reply(answer)
    assert box.answers == [SendAnswer(ReplyPath(1, ("10.41.0.9", 5000)), asked[:2] + answer[2:])]
    assert box.core.deadline() is None
    assert box.core.counts().answered == 1


def test_ids_and_lanes_are_not_predictable() -> None:
    """Many queries spread over all lanes, with ids from the whole range."""
    box = Box(replace(SETTINGS, max_pending=1000, client_burst=1000))
    for number in range(400):
        box.ask(query(f"n{number}.example", id_=number))
    assert len({sent.lane for sent in box.sent}) == UDP_LANES
    ids = [int.from_bytes(sent.data[:2]) for sent in box.sent]
    assert len(set(ids)) > 390
    assert max(ids) > 60000
    assert min(ids) < 5000


def test_a_resolver_that_folds_case_is_still_understood() -> None:
    """The question is compared without case (RFC 5452 §9.1 with RFC 4343)."""
    box = Box()
    box.ask(query("eXaMple.NET"))
    box.reply(response(box.sent[0].data[:2] + query("example.net")[2:]))
    assert len(box.answers) == 1


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda sent: response(sent[:2] + query("other.example")[2:]), "mismatch"),
        (lambda sent: response(sent[:2] + query("example.net", 28)[2:]), "mismatch"),
        (lambda sent: response(sent[:2] + query("example.net", 1, class_=3)[2:]), "mismatch"),
        (lambda sent: response(sent)[:4] + bytes(8), "mismatch"),
        (lambda sent: response(sent)[:20], "mismatch"),
        (lambda sent: response(bytes((sent[0] ^ 1, sent[1])) + sent[2:]), "stray"),
        (lambda sent: sent, "malformed"),
        (lambda sent: sent[:11], "malformed"),
        (lambda sent: b"", "malformed"),
    ],
)
def test_a_forged_answer_is_counted_and_the_right_one_still_counts(
    forge: Callable[[bytes], bytes], reason: str
) -> None:
    """Wrong id, question, type or class, queries and rubbish change nothing for the client that waits."""
    box = Box()
    box.ask(query("example.net"))
    box.reply(forge(box.sent[0].data))
    assert box.answers == []
    assert box.core.counts().dropped == {reason: 1}
    box.reply(response(box.sent[0].data))
    assert len(box.answers) == 1
    box.reply(response(box.sent[0].data))
    assert len(box.answers) == 1, "an answer counts once"


def test_an_answer_through_another_lane_does_not_count() -> None:
    """The right id and question are worth nothing at a socket that did not ask."""
    box = Box()
    box.ask(query("one.example"))
    box.ask(query("two.example"))
    assert box.sent[0].lane != box.sent[1].lane
    box.reply(response(box.sent[0].data), at=1)
    assert box.answers == []


def test_types_that_differ_only_in_letter_case_are_not_confused() -> None:
    """Type 65 (0x41, A) is not type 97 (0x61, a)."""
    box = Box()
    box.ask(query("example.net", 65))
    box.reply(response(box.sent[0].data[:2] + query("example.net", 97)[2:]))
    assert box.answers == []


def test_own_names_and_canaries_are_answered_without_any_resolver() -> None:
    """No Internet: the portal's names work, foreign names fail at once instead of hanging the phone."""
    box = Box()
    box.perform(box.core.receive(UpstreamsChanged(()), 0.5))
    box.ask(query("login.postern.lan"))
    box.ask(query("mask.icloud.com"))
    box.ask(query("example.net"))
    assert [rcode_of(answer.data) for answer in box.answers] == [0, 3, 2]
    assert box.answers[0].data.endswith(bytes((10, 41, 0, 1)))
    assert box.sent == []
    assert box.core.counts().answered_locally == {"portal": 1, "canary": 1}


def test_a_resolver_that_keeps_silent_is_asked_once_more_at_the_next() -> None:
    """After a third of the timeout the second resolver is asked; either answer will do."""
    box = Box()
    box.ask(query("example.net"), 1.0)
    assert box.core.deadline() == pytest.approx(2.0)
    box.tick(2.0)
    assert box.endpoints_asked == [FIRST, SECOND]
    assert box.sent[0].data[:2] != box.sent[1].data[:2]
    box.reply(response(box.sent[0].data), 2.5, at=0)
    box.reply(response(box.sent[1].data), 2.6, at=1)
    assert len(box.answers) == 1
    assert box.core.deadline() is None


def test_nobody_answers_and_the_client_is_told_in_time() -> None:
    """SERVFAIL after the timeout, with the client's own id and question."""
    box = Box()
    asked = query("example.net", additional=(opt(),))
    box.ask(asked, 1.0)
    box.tick(2.0)
    box.tick(3.9)
    assert box.answers == []
    box.tick(4.0)
    assert len(box.sent) == 2
    assert rcode_of(box.answers[0].data) == 2
    assert box.answers[0].data[:2] == asked[:2]
    assert box.answers[0].data[12:29] == asked[12:29]
    counts = box.core.counts()
    assert counts.unanswered == 1
    assert counts.upstream_failures == {str(FIRST): 1, str(SECOND): 1}
    assert box.core.deadline() is None


def test_a_silent_resolver_rests_and_the_other_is_asked_first_until_it_is_well() -> None:
    """Three unanswered queries in a row send a resolver to rest for five seconds."""
    box = Box()
    for number in range(3):
        box.ask(query(f"n{number}.example"), 1.0)
    box.tick(2.0)
    for sent in range(3, 6):
        box.reply(response(box.sent[sent].data), 2.1, at=sent)
    assert box.endpoints_asked == [FIRST] * 3 + [SECOND] * 3
    assert [status.state for status in box.core.upstreams(2.2)][:2] == ["resting", "answering"]
    box.ask(query("later.example"), 6.0)
    box.ask(query("much-later.example"), 7.5)
    assert box.endpoints_asked[-2:] == [SECOND, FIRST]


def test_a_resolver_that_answers_others_is_not_blamed_for_one_lost_query() -> None:
    """A loss among answers says nothing about health."""
    box = Box(SETTINGS, FIRST)
    for number in range(5):
        box.ask(query(f"lost{number}.example"), 1.0)
    box.ask(query("found.example"), 1.0)
    box.reply(response(box.sent[-1].data), 1.2)
    box.tick(2.0)
    assert box.core.upstreams(2.0)[0].state == "answering"


def test_an_unreachable_resolver_is_left_at_once() -> None:
    """The kernel's word (no route, port closed) moves the query on without waiting, and SERVFAIL comes at once."""
    box = Box()
    box.ask(query("example.net"), 1.0)
    box.fail(1.01)
    assert box.endpoints_asked == [FIRST, SECOND]
    box.fail(1.02)
    assert rcode_of(box.answers[0].data) == 2
    box.ask(query("again.example"), 1.5)
    assert len(box.sent) == 2, "nobody is asked while both are known to be unreachable"
    assert rcode_of(box.answers[1].data) == 2
    assert [status.state for status in box.core.upstreams(1.5)][:2] == ["unreachable", "unreachable"]
    box.ask(query("back.example"), 3.5)
    assert box.endpoints_asked[-1] == FIRST


def test_when_all_rest_the_one_that_rests_shortest_is_asked() -> None:
    """Silence is no proof: a query still goes out, so that a resolver that woke up is noticed."""
    box = Box(SETTINGS, FIRST)
    for number in range(3):
        box.ask(query(f"n{number}.example"), 1.0)
    box.tick(2.0)
    box.tick(4.0)
    box.ask(query("next.example"), 4.1)
    box.reply(response(box.sent[-1].data), 4.2)
    assert len(box.sent) == 7
    assert box.core.upstreams(4.2)[0].state == "answering"


@pytest.mark.parametrize("rcode", [2, 5])
def test_a_resolver_that_says_it_cannot_is_followed_by_the_next(rcode: int) -> None:
    """SERVFAIL and REFUSED are passed on only when the other resolver knows no better."""
    box = Box()
    box.ask(query("example.net"))
    box.reply(response(box.sent[0].data, rcode=rcode))
    assert box.answers == []
    box.reply(response(box.sent[1].data))
    assert rcode_of(box.answers[0].data) == 0
    box.ask(query("other.example"))
    box.reply(response(box.sent[2].data, rcode=rcode))
    box.tick(9.0)
    assert rcode_of(box.answers[1].data) == rcode


def test_equal_queries_are_sent_once_and_all_are_answered() -> None:
    """Two clients and a client that repeats itself wait for one question; each gets its own id back, once."""
    box = Box()
    box.ask(query("example.net", id_=1), port=5000)
    box.ask(query("example.net", id_=2), port=6000)
    box.ask(query("example.net", id_=1), 1.05, port=5000)
    box.ask(query("EXAMPLE.net", id_=3), port=7000)
    assert len(box.sent) == 2, "other case is another query, as its answer must echo it"
    box.reply(response(box.sent[0].data), at=0)
    assert [(answer.reply_to.address, answer.data[:2]) for answer in box.answers] == [
        (("10.41.0.9", 5000), b"\0\1"),
        (("10.41.0.9", 6000), b"\0\2"),
    ]


def test_one_client_cannot_ask_more_than_its_share() -> None:
    """Beyond the burst queries are dropped and counted; another client does not notice; one complaint a minute."""
    box = Box()
    for number in range(80):
        box.ask(query(f"n{number}.example"))
    box.ask(query("other.example"), client="10.41.0.10")
    assert len(box.sent) == 51
    assert box.core.counts().dropped == {"rate": 30}
    assert len(box.complaints) == 1
    assert box.answers == []


def test_by_tcp_a_query_beyond_the_share_is_refused_in_words() -> None:
    """A TCP client is never left waiting."""
    box = Box(replace(SETTINGS, client_burst=1))
    box.ask(query("one.example"), tcp=True)
    box.ask(query("two.example"), tcp=True)
    assert [rcode_of(answer.data) for answer in box.answers] == [5]


def test_queries_under_way_are_bounded() -> None:
    """The bound counts everybody who waits; beyond it UDP is dropped, TCP gets SERVFAIL, and room comes back."""
    box = Box(replace(SETTINGS, max_pending=3, client_burst=1000))
    for port in (1, 2):
        box.ask(query("same.example"), port=port)
    box.ask(query("other.example"))
    box.ask(query("too-many.example"))
    box.ask(query("too-many.example"), tcp=True)
    assert len(box.sent) == 2
    assert box.core.counts().dropped == {"full": 2}
    box.reply(response(box.sent[0].data), at=0)
    box.ask(query("room.example"))
    assert len(box.sent) == 3


@pytest.mark.parametrize("tcp", [False, True])
def test_what_is_no_query_is_not_served(tcp: bool) -> None:
    """Short messages and responses get nothing (their connection is closed), other requests the protocol's own no."""
    box = Box()
    good = query("example.net")
    box.ask(b"", tcp=tcp)
    box.ask(good[:11], tcp=tcp)
    box.ask(good[:2] + b"\x81" + good[3:], tcp=tcp)
    assert box.answers == []
    assert len(box.closed_clients) == (3 if tcp else 0)
    box.ask(good[:2] + b"\x28" + good[3:], tcp=tcp)  # UPDATE
    box.ask(good[:4] + bytes(2) + good[6:], tcp=tcp)  # no question
    box.ask(good[:15], tcp=tcp)  # cut off
    box.ask(query("example.net", 252), tcp=tcp)  # AXFR
    assert [rcode_of(answer.data) for answer in box.answers] == [4, 1, 1, 5]
    assert box.sent == []
    assert sum(box.core.counts().dropped.values()) == 7


def test_a_truncated_answer_passes_and_tcp_goes_to_the_resolver_by_tcp() -> None:
    """TC reaches the client, whose TCP query travels over a connection of its own to the same resolver."""
    box = Box()
    box.ask(query("big.example", 16))
    box.reply(response(box.sent[0].data, truncated=True))
    assert box.answers[0].data[2] & 0x02
    box.ask(query("big.example", 16), tcp=True)
    assert box.lanes[box.sent[1].lane] == OpenLane(box.sent[1].lane, FIRST, True)
    box.ask(query("second.example", 16), tcp=True)
    assert box.sent[1].lane == box.sent[2].lane, "queries share the connection"


def test_a_connection_closed_by_the_resolver_is_made_again_once() -> None:
    """Servers close idle connections at the worst moment; the query is sent again, but not for ever."""
    box = Box(SETTINGS, FIRST)
    box.ask(query("example.net"), tcp=True)
    box.fail(unreachable=False)
    assert len(box.sent) == 2
    box.fail(1.2, unreachable=False)
    assert len(box.sent) == 2
    assert rcode_of(box.answers[0].data) == 2


def test_a_silent_connection_is_not_used_for_the_repetition() -> None:
    """A dead connection may stay silent for minutes: the repetition opens a new one, the old is closed at the end."""
    box = Box(SETTINGS, FIRST)
    box.ask(query("example.net"), 1.0, tcp=True)
    box.tick(2.0)
    assert box.sent[0].lane != box.sent[1].lane
    box.reply(response(box.sent[1].data), 2.1)
    assert list(box.lanes) == [box.sent[1].lane]


def test_refusing_tcp_does_not_make_a_resolver_unwell_for_udp() -> None:
    """Health is kept per transport."""
    box = Box(SETTINGS, FIRST)
    box.ask(query("example.net"), tcp=True)
    box.fail()
    box.ask(query("example.net"))
    assert box.lanes[box.sent[-1].lane].tcp is False


def test_sockets_are_replaced_after_some_queries_and_some_time() -> None:
    """Ports do not stay guessable, and old sockets close when their last answer came."""
    box = Box(replace(SETTINGS, client_rate=1e6, client_burst=10**6))
    for number in range(LANE_QUERIES * UDP_LANES * 2):
        box.ask(query(f"n{number}.example"), 1.0)
        box.reply(response(box.sent[-1].data), 1.0)
    assert max(Counter(sent.lane for sent in box.sent).values()) == LANE_QUERIES
    assert len(box.lanes) == UDP_LANES
    before = set(box.lanes)
    for number in range(200):
        box.ask(query(f"m{number}.example"), 2.0 + LANE_AGE_S)
        box.reply(response(box.sent[-1].data), 2.0 + LANE_AGE_S)
    assert before.isdisjoint(box.lanes)


def test_sockets_are_bounded_when_nobody_answers() -> None:
    """Worn sockets that wait for answers do not pile up."""
    box = Box(replace(SETTINGS, client_rate=1e6, client_burst=10**6, max_pending=10**6), FIRST)
    for number in range(29_000):
        box.ask(query(f"n{number}.example"), 1.0)
    assert len(box.lanes) <= MAX_LANES
    assert len(box.sent) == 29_000
    box.tick(2.0)
    box.tick(4.0)
    assert len(box.answers) == 29_000
    assert len(box.lanes) <= UDP_LANES


def test_a_change_of_resolvers_moves_what_is_under_way() -> None:
    """Queries that wait for a resolver that is no longer asked go to its successor; its failures stay counted."""
    box = Box(SETTINGS, FIRST)
    box.ask(query("lost.example"), 0.5)
    box.tick(3.6)
    box.ask(query("example.net"), 3.7)
    box.perform(box.core.receive(UpstreamsChanged((SECOND,)), 3.8))
    assert box.endpoints_asked[-1] == SECOND
    assert {lane.endpoint for lane in box.lanes.values()} == {SECOND}
    box.reply(response(box.sent[-1].data), 3.9)
    assert rcode_of(box.answers[-1].data) == 0
    assert box.core.counts().upstream_failures[str(FIRST)] == 2


def test_without_a_successor_what_is_under_way_fails() -> None:
    """The uplink went away: clients are told at once."""
    box = Box(SETTINGS, FIRST)
    box.ask(query("example.net"))
    box.perform(box.core.receive(UpstreamsChanged(()), 1.5))
    assert rcode_of(box.answers[0].data) == 2
    assert box.lanes == {}


def test_new_settings_hold_for_new_queries() -> None:
    """Names and limits follow a reload."""
    box = Box()
    names = LocalNames(("portal.example",), {"guest": IPv4Address("10.9.9.1")}, 5)
    box.perform(box.core.receive(SettingsChanged(replace(SETTINGS, names=names, timeout_s=1.0)), 1.0))
    box.ask(query("portal.example"))
    assert box.answers[0].data.endswith(bytes((10, 9, 9, 1)))
    box.ask(query("example.net"), 2.0)
    assert box.core.deadline() == pytest.approx(2.0 + 1 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_hostile_clients_and_resolvers_break_nothing(seed: int) -> None:
    """Random queries, answers, damage, failures and time: every TCP query gets exactly one answer or is cut off.

    In the end nothing is under way and no socket is left over.
    """
    rng = random.Random(seed)
    settings = replace(SETTINGS, max_pending=40, client_rate=50.0, client_burst=30)
    box = Box(settings, FIRST, SECOND, seed=seed)
    now, asked_by_tcp = 1.0, 0
    for step in range(3000):
        now += rng.random() * 0.02
        kind = rng.random()
        if kind < 0.5:
            data = query(f"n{rng.randrange(60)}.example", rng.choice((1, 28, 65, 252)), id_=rng.randrange(5))
            if rng.random() < 0.15:
                data = damaged(data, rng)
            tcp = rng.random() < 0.4
            asked_by_tcp += tcp
            box.ask(data, now, client=f"10.41.0.{rng.randrange(6)}", port=step if tcp else rng.randrange(50), tcp=tcp)
        elif kind < 0.85 and box.sent:
            at = rng.randrange(max(0, len(box.sent) - 30), len(box.sent))
            data = response(box.sent[at].data, rcode=rng.choice((0, 0, 0, 2, 3, 5)))
            box.reply(damaged(data, rng) if rng.random() < 0.3 else data, now, at=at)
        elif kind < 0.9 and box.sent:
            box.fail(now, at=rng.randrange(max(0, len(box.sent) - 30), len(box.sent)), unreachable=rng.random() < 0.5)
        elif kind < 0.91:
            endpoints = rng.choice(((FIRST,), (SECOND,), (FIRST, SECOND), ()))
            box.perform(box.core.receive(UpstreamsChanged(endpoints), now))
        else:
            box.tick(now)
        assert box.core.counts().pending <= 40
    box.tick(now + 100)
    assert box.core.deadline() is None
    assert box.core.counts().pending == 0
    answered = Counter(answer.reply_to for answer in box.answers if answer.reply_to.address is None)
    cut_off = Counter(client.reply_to for client in box.closed_clients)
    assert sum((answered + cut_off).values()) == asked_by_tcp
    assert max((answered + cut_off).values()) == 1
    assert len(box.lanes) <= 2 * (UDP_LANES + 1)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, lengthen."""
    octets = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        if octets:
            octets[rng.randrange(len(octets))] = rng.randrange(256)
    return bytes(octets[: rng.randrange(len(octets) + 1)] if rng.random() < 0.5 else octets + rng.randbytes(8))
