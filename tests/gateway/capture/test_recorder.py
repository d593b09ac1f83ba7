"""Recording real packets in a network namespace of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.analysis.frames import CaptureFile
from gateway.analysis.headers import locate
from gateway.capture import recording
from tests.gateway.analysis.made_packets import ethernet, udp

pytestmark = pytest.mark.root
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace with a veth pair; `va` (10.99.0.1) is recorded, `vb` is in a second namespace (10.99.0.2)."""
    name = f"rec-{os.getpid()}"
    peer = f"{name}-b"
    try:
        for command in (
            f"ip netns add {name}",
            f"ip netns add {peer}",
            f"ip -n {name} link add va type veth peer name vb netns {peer}",
            f"ip -n {name} addr add 10.99.0.1/24 dev va",
            f"ip -n {peer} addr add 10.99.0.2/24 dev vb",
            f"ip -n {name} link set va up",
            f"ip -n {name} link set lo up",
            f"ip -n {peer} link set vb up",
        ):
            subprocess.run(command.split(), check=True, capture_output=True)
        yield name
    finally:
        for each in (name, peer):
            subprocess.run(["ip", "netns", "del", each], check=False, capture_output=True)


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """A directory that the unprivileged recorder can reach."""
    for path in (tmp_path, *tmp_path.parents[:3]):
        if path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)
    return tmp_path / "captures"


def _postern(namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from gateway.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", code, "capture", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PROJECT,
    )


def _send(namespace: str, count: int, port: int, size: int = 100) -> None:
    code = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for n in range({count}): s.sendto(bytes({size}), ('10.99.0.2', {port}))"
    )
    subprocess.run(["ip", "netns", "exec", namespace, sys.executable, "-c", code], check=True, timeout=60)


def _wait(captures: Path, wanted: str) -> recording.Recording:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (found,) = recording.listing(captures)
        if found.status == wanted:
            return found
        time.sleep(0.05)
    pytest.fail(f"the recording did not become {wanted}: {found}")


def _ports(path: Path) -> list[int]:
    with CaptureFile.open(path) as capture:
        found = []
        for record in capture.walk():
            packet = locate(record.linktype, record.data, record.wire_bytes)
            assert packet is not None
            found.append(packet.ports(record.data)[1])
        return found


def test_a_recording_holds_what_its_filter_says(namespace: str, captures: Path) -> None:
    """Started, filled, stopped: only the wanted packets are in the file, all of them, and the record is right."""
    started = _postern(namespace, "start", "va", "--filter", "udp and port 7777", "--directory", str(captures))
    assert started.returncode == 0, started.stderr
    _send(namespace, 20, 7777)
    _send(namespace, 20, 8888)
    (running,) = recording.listing(captures)
    assert running.status == "recording"
    stopped = _postern(namespace, "stop", running.id, "--directory", str(captures))
    assert stopped.returncode == 0, stopped.stderr
    (ended,) = recording.listing(captures)
    assert (ended.status, ended.ended_by, ended.packets, ended.dropped) == ("finished", "stop", 20, 0)
    assert _ports(captures / ended.id / ended.files[0]) == [7777] * 20
    listed = _postern(namespace, "list", "--directory", str(captures))
    assert ended.id in listed.stdout


def test_the_recorder_holds_nothing_but_its_socket(namespace: str, captures: Path) -> None:
    """It is nobody, without capabilities, at the lowest priority, while the recording runs."""
    _postern(namespace, "start", "va", "--directory", str(captures))
    (running,) = recording.listing(captures)
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] != "0"
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert os.getpriority(os.PRIO_PROCESS, running.pid) == 19
    _postern(namespace, "stop", running.id, "--directory", str(captures))


def test_packets_bytes_and_time_end_a_recording(namespace: str, captures: Path) -> None:
    """Each bound ends it by itself, and the record says which."""
    _postern(namespace, "start", "va", "--packets", "5", "--filter", "udp", "--directory", str(captures))
    _send(namespace, 30, 7777)
    ended = _wait(captures, "finished")
    assert (ended.ended_by, ended.packets) == ("packets", 5)
    assert _postern(namespace, "delete", ended.id, "--directory", str(captures)).returncode == 0

    _postern(namespace, "start", "va", "--bytes", "64kiB", "--filter", "udp", "--directory", str(captures))
    _send(namespace, 100, 7777, 1400)
    ended = _wait(captures, "finished")
    assert ended.ended_by == "bytes"
    assert (captures / ended.id / ended.files[0]).stat().st_size <= 64 << 10
    _postern(namespace, "delete", ended.id, "--directory", str(captures))

    _postern(namespace, "start", "va", "--seconds", "1", "--directory", str(captures))
    assert _wait(captures, "finished").ended_by == "time"


def test_a_ring_goes_on_with_the_newest(namespace: str, captures: Path) -> None:
    """A ring of two small files never holds more than its size and does not end when it is full."""
    _postern(
        namespace, "start", "va", "--bytes", "128kiB", "--ring", "2", "--filter", "udp", "--directory", str(captures)
    )
    _send(namespace, 300, 7777, 1400)
    (running,) = recording.listing(captures)
    _postern(namespace, "stop", running.id, "--directory", str(captures))
    (ended,) = recording.listing(captures)
    assert (ended.ended_by, ended.packets, len(ended.files)) == ("stop", 300, 2)
    assert "capture-0001.pcap" not in ended.files
    assert sum(path.stat().st_size for path in (captures / ended.id).glob("*.pcap")) <= 128 << 10


def test_one_client_is_recorded_by_its_hardware_address(namespace: str, captures: Path) -> None:
    """`--client` is a filter of its own, joined to the other."""
    mac = _mac(f"{namespace}-b", "vb")
    started = _postern(
        namespace, "start", "va", "--client", mac, "--filter", "udp or icmp", "--directory", str(captures)
    )
    assert started.returncode == 0, started.stderr
    _send(namespace, 3, 7777)
    (running,) = recording.listing(captures)
    _postern(namespace, "stop", running.id, "--directory", str(captures))
    (ended,) = recording.listing(captures)
    # Three datagrams and the port-unreachable messages they cause.
    assert ended.packets >= 3
    assert f"mac {mac}" in ended.filter


def test_a_tag_that_the_kernel_took_off_is_in_the_file(namespace: str, captures: Path) -> None:
    """Frames of a VLAN are recorded with their tag, and the filter looks behind it."""
    _postern(namespace, "start", "va", "--filter", "udp and port 7777", "--directory", str(captures))
    frame = ethernet(udp(("10.98.0.2", 5000), ("10.98.0.1", 7777), b"x" * 40)[14:], tags=(5,))
    code = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('vb', 0)); "
        f"s.send(bytes.fromhex('{frame.hex()}'))"
    )
    subprocess.run(["ip", "netns", "exec", f"{namespace}-b", sys.executable, "-c", code], check=True, timeout=60)
    (running,) = recording.listing(captures)
    _postern(namespace, "stop", running.id, "--directory", str(captures))
    (ended,) = recording.listing(captures)
    with CaptureFile.open(captures / ended.id / ended.files[0]) as capture:
        (record,) = capture.walk()
    assert record.data == frame
    assert record.wire_bytes == len(frame)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["start", "nonsense0"], 1, "there is no interface 'nonsense0' here; there are lo, va"),
        (["start", "va", "--filter", "hots 1.2.3.4"], 2, "unknown word 'hots'"),
        (["start", "va", "--client", "zz"], 2, "--client"),
        (["start", "va", "--seconds", "99w"], 2, "out of range"),
        (["stop", "20260101-000000-va"], 1, "there is no recording"),
        (["stop", "../../etc"], 1, "there is no recording"),
        (["delete", "x"], 1, "there is no recording"),
    ],
)
def test_what_cannot_be_done_is_said(
    namespace: str, captures: Path, words: list[str], status: int, message: str
) -> None:
    """A sentence and the right exit status, and nothing left behind."""
    done = _postern(namespace, *words, "--directory", str(captures))
    assert done.returncode == status
    assert message in done.stderr
    assert not list(captures.glob("*")) if captures.exists() else True


def test_an_interface_that_goes_away_ends_the_recording(namespace: str, captures: Path) -> None:
    """With a reason, and with the packets until then."""
    _postern(namespace, "start", "va", "--directory", str(captures))
    subprocess.run(["ip", "-n", namespace, "link", "del", "va"], check=True, capture_output=True)
    ended = _wait(captures, "failed")
    assert "interface" in ended.ended_by or "down" in ended.ended_by.lower()


def _mac(namespace: str, interface: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "cat", f"/sys/class/net/{interface}/address"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_without_the_right_nothing_is_recorded(captures: Path) -> None:
    """The message says which right is missing."""
    code = (
        "import os, sys\nos.setresuid(65534, 65534, 65534)\nfrom gateway.capture.tap import TapError, open_tap\n"
        "try:\n    open_tap('lo', None, snap_bytes=96)\nexcept TapError as err:\n    print(err)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert "CAP_NET_RAW" in done.stdout, done.stderr
    assert socket.AF_PACKET
