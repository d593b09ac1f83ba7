"""The process that goes back into a capture for one page: its answers, its refusals, its confinement."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis.engine import Settings, analyze
from gateway.analysis.frames import CaptureFile
from gateway.analysis.look import LADDER_ROWS, NOT_FOUND
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap, udp

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture with a download and some datagrams, and its report."""
    path = tmp_path_factory.mktemp("look")
    datagrams = [(2.0 + n / 10, udp((CLIENT, 5000), (SERVER, 5001), b"x" * n)) for n in range(70)]
    (path / "a.pcap").write_bytes(pcap([*conversation(lost=True), *datagrams]))
    with (path / "a.pcap").open("rb") as source:
        (path / "r.json").write_text(json.dumps(analyze(source, name="a.pcap", settings=Settings())))
    return path


def look(folder: Path, order: dict[str, Any]) -> subprocess.CompletedProcess[bytes]:
    """Give one order."""
    with (folder / "a.pcap").open("rb") as capture, (folder / "r.json").open("rb") as report:
        return subprocess.run(
            [sys.executable, "-m", "gateway.analysis.look", json.dumps(order), str(report.fileno())],
            stdin=capture,
            pass_fds=(report.fileno(),),
            cwd=PROJECT,
            capture_output=True,
            timeout=60,
            check=False,
        )


def uid(folder: Path, proto: str) -> str:
    """The flow of a protocol."""
    rows = json.loads((folder / "r.json").read_text())["flows"]["rows"]
    return str(next(row["uid"] for row in rows if row["proto"] == proto))


def answer(folder: Path, **order: Any) -> Any:
    """The JSON answer to an order."""
    done = look(folder, order)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_flow_has_figures_and_a_page_of_packets(folder: Path) -> None:
    """At the first trouble unless a place is named, for the side that sent more unless one is."""
    found = answer(folder, kind="flow", uid=uid(folder, "tcp"), data="", at=-1)
    assert found["total"] == len(conversation(lost=True))
    assert found["data"] == "resp"
    assert "<svg" in found["figures"][0]
    assert [packet["frame"] for packet in found["packets"]] == sorted(packet["frame"] for packet in found["packets"])
    from_start = answer(folder, kind="flow", uid=uid(folder, "tcp"), data="orig", at=0)
    assert (from_start["data"], from_start["at"], from_start["packets"][0]["flags"]) == ("orig", 0, "SYN")
    beyond = answer(folder, kind="flow", uid=uid(folder, "tcp"), data="", at=10**9)
    assert (beyond["at"], len(beyond["packets"])) == (found["total"] - 1, 1)


def test_datagrams_are_listed_without_figures(folder: Path) -> None:
    """A page at a time."""
    first = answer(folder, kind="flow", uid=uid(folder, "udp"), data="", at=-1)
    assert (first["total"], first["figures"], len(first["packets"])) == (70, [], LADDER_ROWS)
    rest = answer(folder, kind="flow", uid=uid(folder, "udp"), data="", at=LADDER_ROWS)
    assert [packet["length"] for packet in rest["packets"]] == list(range(LADDER_ROWS, 70))


def test_frames_come_as_they_stand_in_the_file(folder: Path) -> None:
    """Octet for octet, with link type and time."""
    found = answer(folder, kind="frames", first=2, last=3)
    with CaptureFile.open(folder / "a.pcap") as capture:
        records = list(capture.walk(first=2, last=3))
    assert [base64.b64decode(item["data"]) for item in found] == [record.data for record in records]
    assert [item["t_ns"] for item in found] == [record.t_ns for record in records]


def test_a_cut_is_a_capture(folder: Path, tmp_path: Path) -> None:
    """Of a flow, of everything, and anonymised."""
    for order, packets in (
        ({"flow": uid(folder, "udp"), "anonymise": False}, 70),
        ({"anonymise": False}, 70 + len(conversation(lost=True))),
        ({"flow": uid(folder, "tcp"), "anonymise": True}, len(conversation(lost=True))),
    ):
        done = look(folder, {"kind": "cut", **order})
        assert done.returncode == 0, done.stderr
        path = tmp_path / "cut"
        path.write_bytes(done.stdout)
        with CaptureFile.open(path) as capture:
            assert len(list(capture.walk())) == packets
        if order["anonymise"]:
            assert bytes(map(int, CLIENT.split("."))) not in done.stdout


def test_an_anonymised_report_names_nobody(folder: Path) -> None:
    """Neither address nor file."""
    text = json.dumps(answer(folder, kind="anonymised"))
    assert CLIENT not in text
    assert "a.pcap" not in text


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "flow", "uid": "C99", "data": "", "at": 0},
        {"kind": "frames", "first": 10_000, "last": 10_000},
        {"kind": "cut", "flow": "C99", "anonymise": False},
        {"kind": "cut", "finding": "nothing", "anonymise": True},
        {"kind": "other"},
    ],
)
def test_what_is_not_there_is_said_in_json(folder: Path, order: dict[str, Any]) -> None:
    """On standard error, with an exit status of its own and nothing on standard output."""
    done = look(folder, order)
    assert (done.returncode, done.stdout) == (NOT_FOUND, b"")
    assert json.loads(done.stderr)["error"] == "not-found"


def test_a_file_that_is_no_capture_is_named(folder: Path, tmp_path: Path) -> None:
    """As the analysis would."""
    (tmp_path / "a.pcap").write_bytes(b"no capture at all, but long enough for a header")
    os.link(folder / "r.json", tmp_path / "r.json")
    done = look(tmp_path, {"kind": "frames", "first": 1, "last": 1})
    assert (done.returncode, json.loads(done.stderr)["error"]) == (1, "not-a-capture")
