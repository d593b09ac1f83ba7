"""Finding flows, findings and frames again, and decoding them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.analysis import dissect, second_look
from gateway.analysis.frames import CaptureFile
from gateway.analysis.packet_text import hex_lines, packets_text, plain_text
from gateway.analysis.second_look import NotFound
from gateway.analysis.text import Style
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap, udp
from tests.gateway.analysis.sample_report import sample

OTHER = udp((CLIENT, 5353), ("192.0.2.1", 53), b"x")


@pytest.fixture
def capture_path(tmp_path: Path) -> Path:
    """Foreign packets, then a download, with a foreign packet in the middle and one behind."""
    frames = [(-0.2, OTHER), (-0.1, OTHER), *conversation(lost=True), (1.0, OTHER)]
    frames.insert(9, (0.0601, OTHER))
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(frames))
    return path


@pytest.fixture
def report(capture_path: Path) -> dict[str, Any]:
    """A report that knows where the download begins and ends."""
    with CaptureFile.open(capture_path) as capture:
        records = list(capture.walk())
    made = sample()
    made["flows"]["rows"][0].update(
        orig_host=CLIENT, orig_port=40000, resp_host=SERVER, resp_port=80, vlan=None, offset=records[2].offset
    )
    made["flows"]["rows"][0].update(first_frame=3, last_frame=len(records) - 1, proto="tcp")
    made["capture"]["interfaces"] = made["capture"]["interfaces"][:1]
    return made


def test_a_flow_is_found_by_uid_or_number(report: dict[str, Any]) -> None:
    """`C1` and `1` are the same flow; an unknown one is answered with those that exist."""
    assert second_look.find_flow(report, "1") is second_look.find_flow(report, "C1")
    with pytest.raises(NotFound, match="C1"):
        second_look.find_flow(report, "C99")


def test_a_finding_is_found_by_the_beginning_of_its_id(report: dict[str, Any]) -> None:
    """As long as only one begins so."""
    assert second_look.find_finding(report, "tcp.lo")["id"] == "tcp.loss-0a1b2c"
    report["findings"].append({**report["findings"][0], "id": "tcp.loss-ffffff"})
    with pytest.raises(NotFound, match="several"):
        second_look.find_finding(report, "tcp.lo")
    with pytest.raises(NotFound, match="there is no finding"):
        second_look.find_finding(report, "dns")


def test_the_records_of_a_flow_are_its_own(capture_path: Path, report: dict[str, Any]) -> None:
    """Packets of others between first and last frame are left out."""
    with CaptureFile.open(capture_path) as capture:
        found = list(second_look.flow_records(capture, report, report["flows"]["rows"][0]))
    assert len(found) == len(conversation(lost=True))
    assert all(record.data != OTHER for record in found)


def test_nothing_before_the_flow_is_read(capture_path: Path, report: dict[str, Any]) -> None:
    """With the records before it destroyed, the flow is still found at its offset."""
    offset = report["flows"]["rows"][0]["offset"]
    data = capture_path.read_bytes()
    capture_path.write_bytes(data[:24] + b"\xff" * (offset - 24) + data[offset:])
    with CaptureFile.open(capture_path) as capture:
        assert second_look.trace_flow(capture, report, report["flows"]["rows"][0]).segments[0].frame == 3
    assert second_look.frames(capture_path, 4, 5, report)[0].frame == 4


def test_frames_are_bounded_and_a_missing_one_is_named(capture_path: Path) -> None:
    """No more than the limit at once; a frame behind the end is an error with its number."""
    assert [record.frame for record in second_look.frames(capture_path, 1, 10**9)][:2] == [1, 2]
    with pytest.raises(NotFound, match="no frame 5000"):
        second_look.frames(capture_path, 5000, 5001)


def test_a_finding_gives_its_listed_frames_or_its_flow(capture_path: Path, report: dict[str, Any]) -> None:
    """With all frames listed exactly these; with more than are listed, the flow between first and last."""
    finding = report["findings"][0]
    finding.update(frames=[4, 8], count=2, first={"frame": 4, "t": 0.0}, last={"frame": 8, "t": 0.0}, flow="C1")
    with CaptureFile.open(capture_path) as capture:
        assert [r.frame for r in second_look.finding_records(capture, report, finding)] == [4, 8]
        finding.update(count=500, last={"frame": 12, "t": 0.0})
        assert [r.frame for r in second_look.finding_records(capture, report, finding)] == [4, 5, 6, 7, 8, 9, 11, 12]
        finding.update(flow=None, hosts={"source": CLIENT, "target": "192.0.2.1"}, first={"frame": 1, "t": 0.0})
        assert [r.frame for r in second_look.finding_records(capture, report, finding)] == [1, 2, 4, 8, 10]


def test_packets_are_decoded_in_another_process(capture_path: Path) -> None:
    """Every layer and field comes back as text, cookies do not."""
    pytest.importorskip("scapy")
    import sys

    request = b"GET / HTTP/1.1\r\nHost: a.example\r\nCookie: secret=1\r\n\r\n"
    from tests.gateway.analysis.made_packets import PUSH, tcp

    capture_path.write_bytes(pcap([tcp((CLIENT, 40000), (SERVER, 80), 1, 1, PUSH, request), OTHER, b"\x01\x02"]))
    loaded = set(sys.modules)
    first, second, third = dissect.dissect(second_look.frames(capture_path, 1, 3))
    assert not any(name.startswith("scapy.layers") for name in set(sys.modules) - loaded)
    names = [layer.name for layer in first.layers]
    assert names[:3] == ["Ethernet", "IP", "TCP"]
    fields = {name: value for layer in first.layers for name, value in layer.fields}
    assert fields["Host"] == "a.example"
    assert "secret" not in str(first.layers)
    assert "UDP" in [layer.name for layer in second.layers]
    assert third.data == b"\x01\x02"
    text = packets_text([first, second, third], Style(), first_unix_ns=None, with_bytes=True)
    assert "#1  0.000000 s" in text
    assert "0000  " in text


def test_without_scapy_there_is_a_sentence(capture_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, and the bytes can still be shown."""
    monkeypatch.setattr(dissect, "find_spec", lambda _name: None)
    records = second_look.frames(capture_path, 1, 1)
    with pytest.raises(dissect.DissectorMissing, match="python3-scapy"):
        dissect.dissect(records)
    assert "02 00 00 00 00 01" in plain_text(records, Style(), first_unix_ns=None)


def test_hexadecimal_lines_are_cut_with_a_sign() -> None:
    """Sixteen bytes a line, printable characters beside, the rest counted."""
    lines = hex_lines(b"AB\x00" + bytes(20), limit=16)
    assert lines[0].startswith("0000  41 42 00")
    assert lines[0].endswith("AB..............")
    assert lines[-1] == "…     7 more bytes"
