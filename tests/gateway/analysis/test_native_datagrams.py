"""The helper counts datagrams, reads names and describes round trips as Python does."""

from __future__ import annotations

import random
import struct
from array import array
from typing import Any

import pytest

from gateway.analysis import dns, native
from gateway.analysis.measures import stats_ms
from gateway.analysis.settings import Settings
from tests.gateway.analysis.outcomes import InPython, damaged_ones_give_the_same, outcome
from tests.gateway.analysis.packets import START_NS, Trace, dns_name, dns_query, udp

pytestmark = pytest.mark.usefixtures("native_helper")

_TIGHT = Settings().with_overrides(
    {"tables.flows": "64", "tables.names": "64", "tables.dns_pending": "16", "tables.rows": "10", "tables.frames": "10"}
)
_DECAPSULATED = Settings().with_overrides({"reader.decapsulate": "true"})
_HOSTS = tuple(f"10.0.0.{number}" for number in range(2, 9))
_SERVERS = ("10.0.0.53", "8.8.8.8", "224.0.0.251")
_PORTS = (53, 5353, 5355, 67, 443, 1900, 123, 4000, 40_000)


def _name(generator: random.Random) -> bytes:
    """A name on the wire: mostly a plain one, sometimes one that nobody should send."""
    labels = [generator.choice(("www", "mail", "a.b", "EXAMPLE", "x" * 63, "wpad", "", "ä")) for _ in range(2)]
    if generator.random() < 0.5:
        labels = [f"{generator.getrandbits(40):x}", generator.choice(("example", "Tunnel", "co"))]
    raw = b"".join(bytes([len(label.encode())]) + label.encode() for label in labels if label)
    raw += bytes([3]) + generator.choice((b"com", b"org", b"cO\x00", b"a..")) + b"\0"
    return generator.choice((raw, raw, raw, raw, b"\0", b"\xc0\x0c", raw[:-1], b"\x40" + raw, raw * 9))


def _answer(generator: random.Random) -> bytes:
    """One record of an answer: mostly an address of the name that was asked for."""
    owner = generator.choice((b"\xc0\x0c",) * 6 + (dns_name("other.example.com"), b"\xc0\x40", b"\xff"))
    kind, data = generator.choice(
        ((1, bytes([198, 51, 100, generator.randrange(4)])),) * 6
        + ((28, bytes(16)), (5, b"\xc0\x0c"), (16, b"\x04text"), (1, b"\1\2"), (15, b"\0\1\xc0\x0c"))
    )
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def _message(generator: random.Random, question: bytes) -> bytes:
    """A question or an answer with this question in it, now and then with odd counts or flags."""
    ident = generator.randrange(3)
    if generator.random() < 0.5:
        flags = generator.choice((0x0100,) * 5 + (0x2100, 0x7800, 0x0000))
        counts = generator.choice(((1, 0),) * 8 + ((0, 0), (2, 0), (65, 0)))
        return struct.pack(">HHHHHH", ident, flags, *counts, 0, 0) + question * max(1, min(counts[0], 2))
    flags = generator.choice((0x8180,) * 6 + (0x8183, 0x8182, 0x8185, 0x8380))
    answers = [_answer(generator) for _ in range(generator.choice((0, 1, 1, 2, 3, 9)))]
    told = generator.choice((len(answers),) * 9 + (len(answers) + 1,))
    return struct.pack(">HHHHHH", ident, flags, 1, told, 0, 0) + question + b"".join(answers)


def datagrams(seed: int, count: int = 1500) -> Trace:
    """Questions, answers and other datagrams among few hosts, so that they meet again in all tables."""
    generator = random.Random(seed)
    trace = Trace()
    questions = [_name(generator) + struct.pack(">HH", generator.choice((1, 1, 1, 16, 28)), 1) for _ in range(25)]
    t = 0.0
    for _ in range(count):
        t += generator.choice((0.0, 0.001, 0.003, 0.02, 0.3 if generator.random() < 0.2 else 0.0, -0.001))
        if generator.random() < 0.01:
            t += generator.choice((2.0, 6.0))
        host, server = generator.choice(_HOSTS), generator.choice(_SERVERS)
        port = generator.choice((*(40_000 + number for number in range(12)), *_PORTS))
        if generator.random() < 0.8:
            data = _message(generator, generator.choice(questions))
            ends = [(host, port), (server, generator.choice((53,) * 9 + _PORTS))]
            if data[2:3] >= b"\x80":
                ends.reverse()
        else:
            data = generator.randbytes(generator.choice((0, 1, 12, 100)))
            ends = [(host, port), (server, generator.choice(_PORTS))]
        packet = udp(*ends[0], *ends[1], data)
        if generator.random() < 0.03:
            packet = packet[: generator.randrange(30, len(packet) + 1)]
        trace.add(max(t, 0.0), packet)
    return trace


@pytest.mark.parametrize("bounds", [Settings(), _TIGHT, _DECAPSULATED], ids=["usual", "tight tables", "decapsulated"])
@pytest.mark.parametrize("seed", range(8))
def test_datagrams_give_the_same(seed: int, bounds: Settings, plain: InPython) -> None:
    """Whatever is asked and answered, in whole files and in small blocks."""
    trace = datagrams(seed)
    for data in (trace.pcap(), trace.pcap(snap=70), trace.pcapng()):
        expected = plain.outcome(data, bounds)
        assert outcome(data, bounds) == expected
        assert outcome(data, bounds, 499) == expected


def test_damaged_datagrams_give_the_same(plain: InPython) -> None:
    """Flipped, cut out and doubled bytes in questions and answers."""
    generator = random.Random(7)
    seeds = [datagrams(seed, 200).pcap() for seed in range(100, 104)]
    damaged_ones_give_the_same(generator, seeds, (_TIGHT, Settings()), plain)


def test_busy_servers_and_far_times_give_the_same(plain: InPython) -> None:
    """More than fifty datagrams a second, more sources than are counted, and clocks at the end of their numbers."""
    trace = Trace()
    for number in range(900):
        source = f"10.{number % 3}.{number // 250}.{number % 250}"
        trace.add(number * 0.004, udp(source, 50_000, "10.9.9.9", 53, dns_query(number, f"n{number}.example.com")))
    far = Trace()
    for number, t_ns in enumerate((0, 1, 1 << 62, (1 << 62) + 5, (1 << 63) - 1, (1 << 63) - 2, 5, (1 << 62) - 9)):
        far.packets.append((t_ns, udp("10.0.0.2", 50_000, "10.0.0.53", 53, dns_query(number, "far.example.com"))))
    for data in (trace.pcap(), far.pcapng()):
        assert outcome(data, Settings()) == plain.outcome(data, Settings())


def test_usual_names_do_not_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain questions and their answers are taken by the helper, but for the first answer of each server."""
    seen: list[Any] = []
    message = dns.message

    def counted(*arguments: Any) -> bool:
        seen.append(arguments)
        return message(*arguments)

    monkeypatch.setattr(dns, "message", counted)
    trace = Trace()
    for number in range(50):
        question = dns_name(f"host{number}.example.com") + b"\0\1\0\1"
        head = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0)
        trace.add(number, udp("10.0.0.2", 40_000 + number, "10.0.0.53", 53, head + question))
        head = struct.pack(">HHHHHH", number, 0x8180, 1, 1, 0, 0)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc6\x33\x64\x07"
        trace.add(number + 0.01, udp("10.0.0.53", 53, "10.0.0.2", 40_000 + number, head + question + answer))
    report = trace.report()
    assert report["dns"]["queries"] == report["dns"]["responses"] == 50
    assert report["protocols"]["transport"]["UDP"]["packets"] == 100
    assert len(seen) == 1


def test_round_trips_are_described_the_same() -> None:
    """A spread of round trips is the same number, to the last bit, wherever it is reckoned."""
    generator = random.Random(2)
    for size in (1, 2, 3, 19, 20, 21, 100, 4096):
        for bits in (10, 30, 49, 50, 63):
            samples = [generator.getrandbits(bits) for _ in range(size)]
            ours: Any = native.new_trips()
            for sample in samples:
                ours.append(sample)
            ours, theirs = native.sorted_trips(ours), native.sorted_trips(array("Q", samples))
            assert list(ours) == list(theirs) == sorted(samples)
            assert repr(stats_ms(ours)) == repr(stats_ms(theirs)) == repr(stats_ms(samples))
    assert stats_ms(native._load().Trips()) is None
    assert native._load().Trips().stats_ms() is None


def test_tables_that_are_none_are_refused() -> None:
    """What is not the state of an analysis is told to whoever made it."""
    helper = native._load()
    for wrong in (None, object(), START_NS):
        with pytest.raises((AttributeError, TypeError)):
            helper.Registers(wrong)
    with pytest.raises(TypeError):
        helper.Registers()
