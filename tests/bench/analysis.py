"""Analysis benchmark: packets per CPU second and peak memory next to tshark, tcptrace and capinfos, in one run.

    python -m tests.bench.analysis [--big N] [--flood N] [--rounds 3] [--only small,big,flood]

Three captures are generated with a fixed seed: 131,072 mixed packets, 2 million packets of long transfers, and a SYN
flood from 500,000 sources. Each program runs in a fresh process; CPU time is user + system of that process, the best of
several runs. A small fixed Python loop is timed before and after our runs, so that figures of different machines, and
of a busy one, can be compared. The programs are those of the Debian packages tshark, tcptrace and wireshark-common; a
missing one is left out and said to be.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from gateway.analysis import job
from tests.gateway.analysis.packets import ACK, PSH, START_NS, SYN, Trace, dns_answer, dns_query, tcp, udp

_SMALL: Final = 131_072
_FLOORS: Final = {"small": (250_000, 40), "big": (300_000, 100), "flood": (200_000, 80)}
_TSHARK: Final = {"small": 2.5, "big": 15.0}
_OURS: Final = """
import sys
from gateway.analysis.engine import analyze
from gateway.analysis.settings import Settings
with open(sys.argv[1], "rb") as source:
    report = analyze(source, name="bench", settings=Settings())
print(report["capture"]["packets"], len(report["findings"]))
"""


def _header(out: BinaryIO) -> None:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))


def _write(out: BinaryIO, t_ns: int, packet: bytes) -> None:
    out.write(struct.pack("<IIII", t_ns // 10**9, t_ns % 10**9 // 1000, len(packet), len(packet)) + packet)


def _mixed(seed: int) -> Iterator[bytes]:
    """About a thousand packets of web pages, names, shells and a transfer, from hosts that depend on `seed`."""
    generator = random.Random(seed)
    trace = Trace()
    client = f"10.{seed % 200}.{seed // 200 % 250}.2"
    for number in range(12):
        server = f"198.51.{seed % 250}.{number + 1}"
        name = f"host{number}.example{seed % 40}.net"
        trace.add(number * 0.4, udp(client, 40_000 + number, "10.0.0.53", 53, dns_query(number, name)))
        trace.add(number * 0.4 + 0.02, udp("10.0.0.53", 53, client, 40_000 + number, dns_answer(number, name)))
        request = f"GET /{number} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: bench\r\n\r\n".encode()
        size = generator.randrange(2_000, 60_000)
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
        trace.session(number * 0.4 + 0.03, client, 50_000 + number, server, 80, request, answer)
    trace.session(
        1.0, client, 51_000, "198.51.100.9", 443, b"\x17\x03\x03" + bytes(700), b"\x17\x03\x03" + bytes(150_000)
    )
    seq = 100
    for number in range(200):  # somebody types into a shell
        t = 2 + number * 0.02
        trace.add(t, tcp(client, 52_000, "198.51.100.22", 22, PSH | ACK, seq, seq, b"k" * 36, ip_id=trace.next_id()))
        trace.add(
            t + 0.005,
            tcp("198.51.100.22", 22, client, 52_000, PSH | ACK, seq, seq + 36, b"k" * 36, ip_id=trace.next_id()),
        )
        seq += 36
    for _, packet in trace.ordered():
        yield packet


def small(path: Path) -> None:
    """131,072 mixed packets."""
    written = 0
    with path.open("wb") as out:
        _header(out)
        seed = 0
        while written < _SMALL:
            for packet in _mixed(seed):
                _write(out, START_NS + written * 200_000, packet)
                written += 1
                if written >= _SMALL:
                    break
            seed += 1


def big(path: Path, packets: int) -> None:
    """Long transfers, fifty at a time, two data segments for each acknowledgement, one in five hundred lost and
    sent again.
    """
    generator = random.Random(2)
    payload = bytes(180)
    states = [[1000, 1] for _ in range(50)]
    written = 0
    with path.open("wb", buffering=1 << 20) as out:
        _header(out)
        while written < packets:
            number = generator.randrange(50)
            state = states[number]
            client, server, port = f"10.1.{number}.2", f"198.51.100.{number + 1}", 40_000 + state[1]
            if state[0] > 3_000_000:
                state[0], state[1] = 1000, state[1] + 1
            if state[0] == 1000:
                handshake = (
                    tcp(client, port, server, 443, SYN, 5),
                    tcp(server, 443, client, port, SYN | ACK, 999, 6),
                    tcp(client, port, server, 443, ACK, 6, 1000),
                )
                for packet in handshake:
                    _write(out, START_NS + written * 50_000, packet)
                    written += 1
            for _ in range(2):
                if generator.random() >= 0.002:
                    packet = tcp(server, 443, client, port, PSH | ACK, state[0], 6, payload, ip_id=written)
                    _write(out, START_NS + written * 50_000, packet)
                    written += 1
                state[0] += 180
            _write(out, START_NS + written * 50_000, tcp(client, port, server, 443, ACK, 6, state[0], ip_id=written))
            written += 1


def flood(path: Path, sources: int) -> None:
    """One SYN from each of many sources to one server, 20,000 a second."""
    with path.open("wb", buffering=1 << 20) as out:
        _header(out)
        for number in range(sources):
            source = f"{20 + number // 65_536}.{number // 256 % 256}.{number % 256}.9"
            packet = tcp(
                source, 1024 + number % 60_000, "192.0.2.80", 80, SYN, number * 77, options=b"\x02\x04\x05\xb4"
            )
            _write(out, START_NS + number * 50_000, packet)


def calibrate() -> float:
    """Seconds of CPU for a million rounds of a small loop: how fast Python is here and now."""
    best = 1e9
    for _ in range(3):
        begun = time.process_time()
        total = 0
        for number in range(1_000_000):
            total += number & 7
        best = min(best, time.process_time() - begun)
    return best


def environment() -> dict[str, str]:
    """An environment in which compiled modules are kept, as in an installed package, in a place of the bench's own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"postern-bench-modules-{os.getuid()}")
    return kept


def measure(words: list[str]) -> tuple[float, float]:
    """CPU seconds and peak RSS in MB of one program run to its end."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{words[0]} ended with status {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def programs(path: str) -> dict[str, list[str]]:
    """What is run on each capture."""
    return {
        "postern": [sys.executable, "-c", _OURS, path],
        "in Python": ["env", "POSTERN_PURE_PYTHON=1", sys.executable, "-c", _OURS, path],  # without the helper
        "tshark": ["tshark", "-n", "-q", "-z", "expert", "-z", "conv,tcp", "-r", path],
        "tcptrace": ["tcptrace", "-n", "-l", "-r", "-W", path],
        "capinfos": ["capinfos", "-c", path],
    }


def start_up(folder: Path, rounds: int) -> float:
    """CPU seconds of `postern analyze` on a capture of ten packets, from start to end."""
    path = folder / "ten.pcap"
    buffer = io.BytesIO()
    _header(buffer)
    for number, packet in enumerate(list(_mixed(1))[:10]):
        _write(buffer, START_NS + number * 1000, packet)
    path.write_bytes(buffer.getvalue())
    words = [sys.executable, "-m", "gateway.cli.main", "analyze", str(path)]
    return min(measure(words)[0] for _ in range(rounds + 1))


def worker(folder: Path, capture: Path, rounds: int) -> tuple[float, float]:
    """CPU seconds of the command and of the worker on one capture, each making the report and the page.

    They take turns, so that a busy minute is bad for both.
    """
    spool = folder / "spool"
    spool.mkdir(mode=0o755)
    folder.chmod(0o711)  # the worker's child is nobody; it is given the capture, not its path, but enters its modules
    command = [sys.executable, "-m", "gateway.cli.main", "analyze", str(capture), "--quiet"]
    command += ["--json", str(folder / "report.json"), "--html", str(folder / "report.html")]
    best = [1e9, 1e9]
    for _ in range(max(rounds, 6)):  # a twentieth is to be told from noise
        directory = job.create(spool, capture.name, now_unix=time.time())
        (directory / job.CAPTURE).hardlink_to(capture)
        job.submit(directory)
        best[0] = min(best[0], measure(command)[0])
        best[1] = min(best[1], measure([sys.executable, "-m", "gateway.analysis.worker", str(directory)])[0])
        shutil.rmtree(directory)
    return best[0], best[1]


def main() -> int:
    """Generate, run, print a table; returns 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--big", type=int, default=2_000_000)
    parser.add_argument("--flood", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="small,big,flood")
    arguments = parser.parse_args()
    missed: list[str] = []
    package = Path(job.__file__).parents[1]
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], env=environment(), check=True)
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        folder = Path(name)
        print(f"calibration: {calibrate() * 1000:.0f} ms of CPU for a million rounds of a Python loop")
        begun = start_up(folder, arguments.rounds)
        print(f"postern analyze on ten packets: {begun:.2f} s CPU (to reach: 0.25 s)\n")
        if begun > 0.25:
            missed.append("start-up")
        for case in arguments.only.split(","):
            path = folder / f"{case}.pcap"
            packets = {"small": _SMALL, "big": arguments.big, "flood": arguments.flood}[case]
            if case == "small":
                small(path)
            elif case == "big":
                big(path, packets)
            else:
                flood(path, packets)
            missed += _case(case, path, packets, arguments.rounds)
            if case == "small":
                command, confined = worker(folder, path, arguments.rounds)
                print(
                    f"  a worker started for it alone: {confined:.2f} s CPU, the command with the same outputs "
                    f"{command:.2f} s\n  (its own start included, which a running service has behind it: "
                    "`bench web` compares with that)\n"
                )
            path.unlink()
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def _case(case: str, path: Path, packets: int, rounds: int) -> list[str]:
    print(f"{case}: {packets} packets, {path.stat().st_size / 1e6:.0f} MB")
    rates: dict[str, float] = {}
    missed: list[str] = []
    floor, memory = _FLOORS[case]
    unit = 1e9  # a busy host slows this loop and the programs alike
    for program, words in programs(str(path)).items():
        if program == "postern":
            unit = calibrate()
        if program != "postern" and shutil.which(words[0]) is None:
            print(f"  {program:9} not installed")
            continue
        again = program in ("postern", "in Python") or case == "small"
        runs = [measure(words) for _ in range(rounds if again else 1)]
        cpu, rss = min(runs)
        rates[program] = packets / cpu
        print(f"  {program:9} {packets / cpu:11,.0f} packets/s  {cpu:7.2f} s CPU  {rss:7.1f} MB")
        if program == "postern":
            unit = min(unit, calibrate())
            print(
                f"  {'':9} {packets / cpu * unit:11,.0f} packets per million rounds of the loop ({unit * 1000:.0f} ms)"
            )
        if program == "postern" and rates[program] < floor:
            missed.append(f"{case}: {rates[program]:,.0f} packets/s, {floor:,} wanted")
        if program == "postern" and rss > memory:
            missed.append(f"{case}: {rss:.0f} MB, {memory} wanted")
    if "tshark" in rates:
        ratio = rates["postern"] / rates["tshark"]
        print(f"  {ratio:.1f} times tshark")
        if ratio < _TSHARK.get(case, 0):
            missed.append(f"{case}: {ratio:.1f} times tshark, {_TSHARK[case]} wanted")
    print()
    return missed


if __name__ == "__main__":
    sys.exit(main())
