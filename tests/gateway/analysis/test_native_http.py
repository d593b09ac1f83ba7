"""The helper reads the usual HTTP as Python does."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.analysis import http
from gateway.analysis.settings import Settings
from tests.gateway.analysis.outcomes import InPython, damaged_ones_give_the_same, outcome
from tests.gateway.analysis.packets import ACK, FIN, PSH, SYN, Trace, tcp

pytestmark = pytest.mark.usefixtures("native_helper")

_TIGHT = Settings().with_overrides(
    {"tables.rows": "10", "tables.names": "64", "tables.frames": "10", "http.slow_s": "0.05", "rtt.spike_s": "1e12"}
)
_METHODS = (b"GET", b"GET", b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"PATCH", b"get", b"")
_PATHS = (b"/", b"/a?secret=1", b"/" + b"x" * 300, b"/\xff\xfe", b"", b"*", b"/a b c")
_HOSTS = (
    b"www.example.com",
    b"Captive.Apple.com:80",
    b"CAPTIVE.APPLE.COM",
    b"\xc3\xa4.de",
    b"",
    b"x" * 254,
    b":1",
    b"a:\xff",
)
_STATUSES = (b"200", b"200", b"200", b"204", b"304", b"301", b"404", b"503", b"401", b"100", b"101", b"2", b"20x", b"")


def _header(generator: random.Random, first: bytes, fields: list[bytes]) -> bytes:
    """A header, mostly well-formed."""
    more = [
        b"Accept: */*",
        b"X-Odd : 1",
        b"no colon",
        b": empty",
        b" HOST:\tpadded ",
        b"Content-Length: 7",
        b"Cookie: a=b",
    ]
    fields = fields + [line for line in more if generator.random() < 0.1]
    generator.shuffle(fields)
    if generator.random() < 0.02:
        fields += [b"N%d: v" % number for number in range(140)] + [b"Host: late.example.com"]
    line = generator.choice((b"\r\n",) * 12 + (b"\n", b"\r\r\n"))
    end = generator.choice((line + line,) * 12 + (b"\n\n", b""))
    return line.join([first, *fields]) + end


def _request(generator: random.Random) -> tuple[bytes, bytes]:
    """(method, request with its body)."""
    method = generator.choice(_METHODS)
    fields = [
        b"Host: " + generator.choice(_HOSTS),
        b"User-Agent: " + generator.choice((b"test", b"y" * 130, b"\xf0\x9f")),
    ]
    body = b""
    if method in (b"POST", b"PUT"):
        body = generator.randbytes(generator.choice((0, 3, 900)))
        fields.append(generator.choice((b"Content-Length: ", b"content-length:")) + str(len(body)).encode())
    if generator.random() < 0.06:
        fields.append(
            generator.choice((b"Authorization: Basic eDp5", b"authorization: Bearer x", b"Transfer-Encoding: chunked"))
        )
    return method, _header(generator, method + b" " + generator.choice(_PATHS) + b" HTTP/1.1", fields) + body


def _answer(generator: random.Random, method: bytes) -> bytes:
    """The answer to a request."""
    status = generator.choice(_STATUSES)
    body = b"" if method == b"HEAD" or status in (b"204", b"304") else bytes(generator.choice((0, 10, 1000, 4000)))
    told = str(len(body) + (5 if method == b"HEAD" else 0)).encode()
    fields = [b"Content-Type: " + generator.choice((b"text/html", b"z" * 90))]
    length = generator.choice((told,) * 10 + (b"", b"-1", b"9" * 16, b"99999", b"12a", b" 5 "))
    fields.append(b"Content-Length: " + length if generator.random() < 0.9 else b"Transfer-Encoding: chunked")
    return (
        _header(generator, generator.choice((b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.1  ")) + status + b" Well", fields)
        + body
    )


def talk(trace: Trace, generator: random.Random, number: int) -> None:
    """One connection with some requests and their answers, in pieces as it comes, now and then with losses."""
    client, server = (f"10.0.0.{2 + number % 5}", 20_000 + number), (f"198.51.100.{number % 3}", 80)
    t = number * 0.01
    seqs = {client: generator.choice((100, 0xFFFFFF00)), server: 900}
    whole = generator.random() < 0.9  # else it was recorded from its middle on
    if whole:
        trace.add(t, tcp(*client, *server, SYN, seqs[client] - 1))
        trace.add(t + 0.001, tcp(*server, *client, SYN | ACK, seqs[server] - 1, seqs[client]))
        trace.add(t + 0.002, tcp(*client, *server, ACK, seqs[client], seqs[server]))
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        method, request = _request(generator)
        answer = _answer(generator, method)
        if generator.random() < 0.05:
            request += _request(generator)[1]
        if generator.random() < 0.05:
            answer += _answer(generator, method)
        for sender, receiver, data in ((client, server, request), (server, client, answer)):
            if generator.random() < 0.04:
                continue  # it was not recorded
            size = generator.choice((1400, 1400, 1400, 16_000, 17_000, 60, 9))
            pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
            stamps = []
            for piece in pieces:
                t += generator.choice((0.001, 0.002, 0.001, 0.08))
                packet = tcp(*sender, *receiver, PSH | ACK, seqs[sender], seqs[receiver], piece, ip_id=trace.next_id())
                seqs[sender] += len(piece)
                if generator.random() < 0.02:
                    continue
                stamps.append((t, packet if generator.random() < 0.99 else packet[: len(packet) - 3]))
            if generator.random() < 0.03:
                stamps.reverse()
            for (_, packet), when in zip(stamps, sorted(when for when, _ in stamps), strict=True):
                trace.add(when, packet)
            t += 0.001
            trace.add(t, tcp(*receiver, *sender, ACK, seqs[receiver], seqs[sender], ip_id=trace.next_id()))
    trace.add(t + 0.01, tcp(*client, *server, FIN | ACK, seqs[client], seqs[server]))


def talks(seed: int, count: int = 60) -> Trace:
    """Connections one beside the other."""
    generator = random.Random(seed)
    trace = Trace()
    for number in range(count):
        talk(trace, generator, number)
    return trace


@pytest.mark.parametrize("bounds", [Settings(), _TIGHT], ids=["usual", "tight tables"])
@pytest.mark.parametrize("seed", range(12))
def test_conversations_of_http_give_the_same(seed: int, bounds: Settings, plain: InPython) -> None:
    """Whatever is asked and answered, in whole files, cut ones and small blocks."""
    trace = talks(seed)
    for data in (trace.pcap(), trace.pcap(snap=200)):
        expected = plain.outcome(data, bounds)
        assert outcome(data, bounds) == expected
        assert outcome(data, bounds, 499) == expected


def test_damaged_conversations_give_the_same(plain: InPython) -> None:
    """Flipped, cut out and doubled bytes."""
    generator = random.Random(8)
    seeds = [talks(seed, 8).pcap() for seed in range(100, 106)]
    damaged_ones_give_the_same(generator, seeds, (_TIGHT, Settings()), plain)


def test_usual_messages_do_not_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three requests and their answers on one connection, none is left to the rules."""
    seen: list[Any] = []
    monkeypatch.setattr(http, "segment", lambda *arguments: seen.append(arguments))
    trace = Trace()
    client, server = ("10.0.0.2", 50_000), ("198.51.100.9", 80)
    trace.add(0.0, tcp(*client, *server, SYN, 99))
    trace.add(0.01, tcp(*server, *client, SYN | ACK, 899, 100))
    trace.add(0.02, tcp(*client, *server, ACK, 100, 900))
    up, down = 100, 900
    for number in range(3):
        request = b"GET /%d HTTP/1.1\r\nHost: captive.apple.com\r\n\r\n" % number
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1500\r\nContent-Type: text/html\r\n\r\n" + bytes(1500)
        trace.add(1 + number, tcp(*client, *server, PSH | ACK, up, down, request, ip_id=trace.next_id()))
        up += len(request)
        for at in (0, 1000):
            piece = answer[at : at + 1000]
            trace.add(
                1.02 + number + at / 1e5, tcp(*server, *client, PSH | ACK, down, up, piece, ip_id=trace.next_id())
            )
            down += len(piece)
        trace.add(1.04 + number, tcp(*client, *server, ACK, up, down, ip_id=trace.next_id()))
    told = trace.report()["http"]
    assert not seen
    assert [(row["path"], row["status"], row["response_bytes"], row["probe"]) for row in told["rows"]] == [
        (f"/{number}", 200, 1500, "Apple") for number in range(3)
    ]
