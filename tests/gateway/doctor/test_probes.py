"""Questions over loopback to servers that answer rightly, wrongly, in drops, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface

import pytest

from gateway.config import Admin, Config, Dns, Endpoint, RadiusServer, Secret, Uam, Zone
from gateway.dns.message import Rcode, Record, RecordType, encode_response, read_question
from gateway.doctor import probes
from gateway.doctor.login_pages import PROBES
from gateway.doctor.radius_servers import Outcome
from gateway.radius.packets import SIGNATURE_SLOT, Code, encode_answer

HOME = IPv4Address("127.0.0.1")
SECRET = "correct-horse"
Reply = Callable[[bytes], list[bytes]]


@contextlib.contextmanager
def datagrams(reply: Reply) -> Iterator[int]:
    """A server of datagrams on loopback; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((str(HOME), 0))

        def serve() -> None:
            while True:
                data, peer = server.recvfrom(4096)
                if not data:
                    return
                for answer in reply(data):
                    server.sendto(answer, peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", server.getsockname())
            thread.join(5)


def signed(secret: str, request: bytes, *, slot: bool = True) -> bytes:
    attributes = SIGNATURE_SLOT if slot else b""
    return encode_answer(Code.ACCESS_ACCEPT, request[1], secret.encode(), attributes, request[4:20])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits than on a real network, for those who never answer."""
    for name in ("DNS_WAIT_S", "RADIUS_WAIT_S"):
        monkeypatch.setattr(probes, name, 0.6)
    monkeypatch.setattr(probes, "PORTAL_WAIT_S", 0.3)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (lambda data: [signed(SECRET, data)], Outcome.SIGNED),
        (lambda data: [signed(SECRET, data, slot=False)], Outcome.UNSIGNED),
        (lambda data: [signed("other-secret", data)], Outcome.WRONG),
        (lambda data: [b"nonsense"], Outcome.WRONG),
        (lambda data: [b"", signed("forged-secret", data), signed(SECRET, data)], Outcome.SIGNED),
        (lambda data: [], Outcome.SILENCE),
    ],
)
def test_status_server(reply: Reply, outcome: Outcome) -> None:
    """What a server answers is told apart; a forged answer does not hide the right one."""
    with datagrams(reply) as port:
        server = RadiusServer(name="main", address=HOME, secret=Secret(SECRET), auth_port=port, acct_port=0)
        (asked,) = probes.ask_radius([server], "postern")
    assert asked.outcome is outcome


def test_a_radius_port_without_a_listener_and_one_that_is_not_asked() -> None:
    """The network's refusal is told at once; without Status-Server nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((str(HOME), 0))
        port = taken.getsockname()[1]
    server = RadiusServer(name="main", address=HOME, secret=Secret(SECRET), auth_port=port, acct_port=0)
    assert probes.ask_radius([server], "postern")[0].outcome is Outcome.REFUSED
    quiet = RadiusServer(
        name="q", address=HOME, secret=Secret(SECRET), auth_port=port, acct_port=0, status_server=False
    )
    assert probes.ask_radius([quiet], "postern")[0].outcome is Outcome.NOT_ASKED


def test_resolvers_that_answer_and_one_that_does_not() -> None:
    """Nonsense and answers to other questions are waited out; silence is None."""

    def answer(query: bytes) -> list[bytes]:
        question = read_question(query)
        record = Record(question.name, RecordType.A, 30, bytes((198, 51, 100, 7)))
        good = encode_response(query, question, Rcode.NOERROR, answers=(record,))
        other = bytes((good[0] ^ 0xFF,)) + good[1:]
        return [b"x", other, good]

    with datagrams(answer) as port, datagrams(lambda data: []) as silent:
        replies = probes.ask_resolvers([Endpoint(HOME, port), Endpoint(HOME, silent)])
    found = replies[Endpoint(HOME, port)]
    assert found is not None
    assert found.addresses == (IPv4Address("198.51.100.7"),)
    assert replies[Endpoint(HOME, silent)] is None


def test_a_portal_that_drips_is_left_after_its_time() -> None:
    """One probe is enough to see it; the others are not asked."""
    over = threading.Event()
    with socket.create_server((str(HOME), 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while not over.wait(0.05):
                    connection.sendall(b"H")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        zone = Zone(name="guest", interface="lo", address=IPv4Interface("127.0.0.1/24"))
        config = Config(zones=(zone,), uam=Uam(port=server.getsockname()[1]), dns=Dns(), admin=Admin())
        try:
            answers = probes.ask_portal(config)["guest"]
        finally:
            over.set()
            thread.join(5)
    assert list(answers) == [PROBES[0]]
    assert answers[PROBES[0]].trouble == "it does not answer in time"
