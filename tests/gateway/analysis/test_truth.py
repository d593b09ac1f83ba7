"""Every shared capture against what tshark counts in it; where we differ on purpose, the difference itself is
asserted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.analysis.engine import analyze
from gateway.analysis.frames import CaptureFile
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Settings
from tests.gateway.analysis.conftest import CAPTURES

NAMES = sorted(path.name for path in CAPTURES.glob("*.pcap*"))
LABELS = (
    "retransmission",
    "fast_retransmission",
    "spurious_retransmission",
    "out_of_order",
    "lost_segment",
    "duplicate_ack",
    "zero_window",
    "window_full",
    "window_update",
    "keep_alive",
    "keep_alive_ack",
)
# (file, what) -> (ours, tshark's, why)
DIFFERENCES: dict[tuple[str, str], tuple[int, int, str]] = {
    ("tcp-every-packet-x4.pcap", "retransmission"): (0, 166, "each packet was recorded four times"),
    ("tcp-every-packet-x4.pcap", "fast_retransmission"): (0, 92, "each packet was recorded four times"),
    ("tcp-every-packet-x4.pcap", "duplicate_ack"): (0, 114, "each packet was recorded four times"),
    ("linktype-nflog.pcap", "retransmission"): (0, 2, "the SYN was recorded three times, same id and time"),
    ("linktype-null-http.pcap", "retransmission"): (
        28,
        34,
        "six FINs were recorded twice: same seq, ack, checksum and time",
    ),
    ("linktype-null-http.pcap", "duplicate_ack"): (28, 34, "the acknowledgements of those FINs were recorded twice"),
    ("tcp-reassembly-gaps.pcap", "fast_retransmission"): (0, 3, "an ACK of unseen data is no run of duplicate ACKs"),
    ("tcp-reassembly-gaps.pcap", "lost_segment"): (6, 8, "the IP length decides where the frame was cut on the wire"),
    ("broken-length.pcap", "packets"): (1, 2, "the second record is garbage: reading stops"),
    ("attacks-synthetic.pcap", "dns_query"): (24, 27, "three are inside IP in IP and Geneve"),
    ("tunnel-gre-udp.pcap", "streams"): (0, 1, "inner connections need decapsulation"),
    ("tunnel-gre-udp.pcap", "dns_query"): (0, 2, "inner packets need decapsulation"),
    ("tunnel-gre-udp.pcap", "http_host"): (0, 1, "inner packets need decapsulation"),
    ("tunnel-vxlan-http.pcap", "streams"): (0, 1, "inner connections need decapsulation"),
    ("tunnel-vxlan-http.pcap", "http_host"): (0, 1, "inner packets need decapsulation"),
}


def measured(report: Any) -> dict[str, int]:
    """The counts of a report under the names of the truth."""
    labels = report["tcp"]["labels"]
    counts = {name: labels.get(name, 0) for name in LABELS}
    counts["packets"] = report["capture"]["packets"]
    counts["streams"] = report["tcp"]["streams"]
    counts["dns_query"] = report["dns"]["queries"]
    counts["http_host"] = len(report["http"]["hosts"])
    counts["sni"] = len(names_of(report))
    return counts


def names_of(report: Any) -> set[str]:
    """Server names in TLS and QUIC hellos."""
    return set(report["tls"]["names"]) | {row["sni"] for row in report["quic"]["rows"] if row["sni"]}


def expected(truth: dict[str, Any]) -> dict[str, int]:
    """The same counts of tshark."""
    counts = {name: truth.get(name, 0) for name in LABELS}
    counts["packets"] = truth["packets"]
    counts["streams"] = truth.get("tcp_streams", 0)
    counts["dns_query"] = truth.get("dns_query", 0)
    counts["http_host"] = len(truth.get("http_host", {}))
    counts["sni"] = len(truth.get("sni", {}))
    return counts


def run(path: Path, **overrides: str) -> Any:
    settings = Settings().with_overrides({key.replace("__", "."): value for key, value in overrides.items()})
    with path.open("rb") as source:
        return analyze(source, name=path.name, settings=settings)


def test_all_captures_are_there(captures: Path, truth: dict[str, Any]) -> None:
    """The truth speaks of 55 captures and all of them are looked at."""
    assert len(truth) == 55
    assert set(truth) == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "big-endian-us.pcap"])
def test_counts_agree_with_tshark(name: str, captures: Path, truth: dict[str, Any]) -> None:
    """Each count equals tshark's, or differs exactly as the definitions say it must."""
    ours, theirs = measured(run(captures / name)), expected(truth[name])
    differing = {what: (ours[what], theirs[what]) for what in ours if ours[what] != theirs[what]}
    wanted = {what: row[:2] for (file, what), row in DIFFERENCES.items() if file == name}
    assert differing == wanted


@pytest.mark.parametrize("name", NAMES)
def test_frames_agree_with_tshark(name: str, captures: Path, truth: dict[str, Any]) -> None:
    """Where the counts agree, so do the frame numbers."""
    if name == "big-endian-us.pcap":
        return
    labels = run(captures / name)["tcp"]["label_frames"]
    for what in LABELS:
        if (name, what) not in DIFFERENCES:
            assert labels.get(what, []) == truth[name].get("frames", {}).get(what, []), what


def test_names_agree_with_tshark(captures: Path, truth: dict[str, Any]) -> None:
    """Server names and HTTP hosts are the same strings as tshark's."""
    for name in (
        "tcp-ooo-tls-20-sni.pcap",
        "home-lan.pcap",
        "attacks-synthetic.pcap",
        "scan-and-ftp.pcap",
        "tls13-ech.pcap",
    ):
        report = run(captures / name)
        assert names_of(report) == set(truth[name].get("sni", {})), name
        assert report["http"]["hosts"] == truth[name].get("http_host", {}), name


def test_a_capture_of_netlink_is_refused_by_name(captures: Path, truth: dict[str, Any]) -> None:
    """A file of which no interface can be decoded is refused with its packets and bytes."""
    with pytest.raises(AnalysisRefused) as caught:
        run(captures / "big-endian-us.pcap")
    assert caught.value.error == "unsupported-linktype"
    assert "netlink" in caught.value.message
    wanted = truth["big-endian-us.pcap"]
    assert caught.value.detail.startswith(f"{wanted['packets']} packets, {wanted['bytes']} bytes")


@pytest.mark.parametrize("name", ["tunnel-gre-udp.pcap", "tunnel-vxlan-http.pcap", "tunnel-teredo.pcap"])
def test_decapsulation_shows_what_tshark_sees(name: str, captures: Path, truth: dict[str, Any]) -> None:
    """With decapsulation switched on, the connections inside tunnels are counted as tshark counts them."""
    report = run(captures / name, reader__decapsulate="yes")
    assert report["tcp"]["streams"] == truth[name]["tcp_streams"]
    assert report["http"]["hosts"] == truth[name]["http_host"]
    assert report["dns"]["queries"] == truth[name].get("dns_query", 0)


def test_every_packet_four_times_is_one_note(captures: Path) -> None:
    """Copies made by a mirror port are said once, as a matter of the recording."""
    report = run(captures / "tcp-every-packet-x4.pcap")
    assert report["capture_health"]["copies"] == 4
    assert [row["kind"] for row in report["findings"] if row["class"] == "capture"] == ["capture.duplicates"]
    assert report["tcp"]["retransmissions"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "attacks-synthetic.pcap",
        "bruteforce-ftp.pcap",
        "home-lan.pcap",
        "scan-and-ftp.pcap",
        "scan-nmap-version.pcap",
        "tcp-every-packet-x4.pcap",
        "tcp-reassembly-gaps.pcap",
        "tso-zero-ip-length.pcapng",
    ],
)
def test_findings_begin_when_their_first_frame_was_recorded(name: str, captures: Path) -> None:
    """Frame and time of a finding speak of the same packet; bursts alone begin with their bin of 100 ms."""
    report = run(captures / name)
    with CaptureFile.open(captures / name) as capture:
        times = {record.frame: record.t_ns for record in capture.walk()}
    for row in report["findings"]:
        if row["first"]["frame"]:
            seconds = (times[row["first"]["frame"]] - times[1]) / 1e9
            tolerance = 0.1 if row["kind"] == "traffic.burst" else 1e-5 * max(1.0, abs(seconds))
            assert row["first"]["t"] == pytest.approx(seconds, rel=0, abs=tolerance), row["kind"]


BENIGN = (
    "home-lan.pcap",
    "web-browse-small.pcap",
    "mixed-services.pcap",
    "tls12-sni.pcap",
    "tls13-ech.pcap",
    "linktype-sll.pcap",
    "linktype-null-http.pcap",
    "http-1000-requests-one-gap.pcap.gz",
    "many-tcp-connections.pcap.gz",
    "pcapng-many-interfaces.pcapng",
    "smb2-one-packet-missing.pcap",
    "tcp-loss-http-range.pcap",
    "dns-mdns.pcap",
    "quic-v2.pcap",
)


@pytest.mark.parametrize("name", BENIGN)
def test_no_false_alarm_on_benign_captures(name: str, captures: Path) -> None:
    """Ordinary traffic is nobody's attack."""
    report = run(captures / name)
    alarms = [
        row
        for row in report["findings"]
        if row["class"] == "security" and row["severity"] in ("medium", "high", "critical")
    ]
    assert [row["title"] for row in alarms] == []


def test_the_attacks_in_shared_captures_are_found(captures: Path) -> None:
    """FTP password guessing and a DHCP flood are found in real captures of them."""
    assert "security.brute_force" in [row["kind"] for row in run(captures / "bruteforce-ftp.pcap")["findings"]]
    flood = run(captures / "flood-dhcp.pcap")["findings"]
    assert [row["kind"] for row in flood if row["severity"] in ("high", "critical")] == ["security.flood.dhcp"]
