"""`postern analyze`: what it writes where, and its exit status."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from gateway.analysis import schema
from gateway.analysis.frames import CaptureFile
from gateway.cli import analyze
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap, udp

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A capture of one download with a loss."""
    made = tmp_path / "down\x1bload.pcap"
    made.write_bytes(pcap(conversation(lost=True)))
    return made


def test_without_options_there_is_a_summary(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, findings and flows, plain, with the file's name escaped."""
    assert analyze.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "Verdict" in out
    assert "down\\x1bload.pcap" in out
    assert "\x1b" not in out


def test_the_report_on_standard_output_is_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json -` writes the report and nothing else, and it fits the published schema."""
    assert analyze.main([str(path), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, schema.build(closed=True))
    assert report["capture"]["packets"] == len(conversation(lost=True))


def test_standard_input_gives_the_same_report(path: Path) -> None:
    """Also compressed, from a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.analyze", "-", "--json"],
        input=gzip.compress(path.read_bytes()),
        capture_output=True,
        cwd=PROJECT,
        check=True,
    )
    assert json.loads(done.stdout)["capture"]["packets"] == len(conversation(lost=True))


def test_files_of_every_form_are_written(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON, page and tables in one go, quietly."""
    out = tmp_path / "out"
    out.mkdir()
    words = ["--json", str(out / "r.json"), "--html", str(out / "r.html"), "--csv", str(out / "csv"), "--quiet"]
    assert analyze.main([str(path), *words]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((out / "r.json").read_text())["schema"].startswith("postern.analysis/1")
    assert "Content-Security-Policy" in (out / "r.html").read_text()
    assert len(list((out / "csv").glob("*.csv"))) == 7
    with (out / "csv" / "flows.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["orig_host"] == CLIENT


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--set", "gap.low"], 2, "expected DETECTOR.NAME=VALUE"),
        (["--set", "gpa.low_s=1"], 2, "did you mean 'gap'"),
        (["--frames", "9-3"], 2, "must not end before it begins"),
        (["--frames", "x"], 2, "expected a frame number"),
        (["--frames", "1", "--flow", "C1"], 2, "only one of"),
        (["--frames", "900"], 1, "no frame 900"),
        (["--flow", "C99"], 1, "there is no flow 'C99'"),
        (["--finding", "nonsense"], 1, "there is no finding 'nonsense'"),
        (["--keep", "10.0.0.1"], 2, "--anonymize"),
        (["--anonymize", "--keep", "x"], 2, "--keep"),
        (["--details", "-1"], 2, "--details"),
    ],
)
def test_wrong_usage_and_missing_things_are_told_apart(
    path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    """2 for arguments that make no sense, 1 for what is not there, both with a sentence."""
    assert analyze.main([str(path), *words]) == status
    assert message in capsys.readouterr().err


def test_a_missing_file_and_a_refused_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 for a file that is not there, 65 with the refusal's name for one that is no capture."""
    assert analyze.main([str(tmp_path / "missing")]) == 1
    assert "No such file" in capsys.readouterr().err
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><html></html>" * 10)
    assert analyze.main([str(page), "--json", "-"]) == 65
    shown = capsys.readouterr()
    assert "not-a-capture" in shown.err
    assert json.loads(shown.out)["error"] == "not-a-capture"


def test_fail_on_a_severity(tmp_path: Path, captures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3 when a finding is at least so severe, 0 when none is."""
    assert analyze.main([str(captures / "bruteforce-ftp.pcap"), "--quiet", "--fail-on", "low"]) == 3
    quiet = tmp_path / "quiet.pcap"
    quiet.write_bytes(pcap([udp((CLIENT, 5000), (SERVER, 6000), b"x")]))
    assert analyze.main([str(quiet), "--quiet", "--fail-on", "medium"]) == 0
    capsys.readouterr()


def test_frames_are_decoded_without_an_analysis(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Field by field, with bytes if asked."""
    pytest.importorskip("scapy")
    assert analyze.main([str(path), "--frames", "4", "--bytes"]) == 0
    out = capsys.readouterr().out
    assert "#4 " in out
    assert "TCP" in out
    assert "2f 20 48 54 54 50" in out


def test_a_flow_is_shown_as_a_ladder(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each packet on a line with its direction and what it is."""
    assert analyze.main([str(path), "--flow", "C1"]) == 0
    out = capsys.readouterr().out
    assert "SYN" in out
    assert "[fills a hole]" in out
    assert "──▶" in out


def test_a_report_is_used_again(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--from-report` looks into the capture without analysing it; another file is not taken for a report."""
    saved = tmp_path / "r.json"
    assert analyze.main([str(path), "--json", str(saved), "--quiet"]) == 0
    assert analyze.main([str(path), "--from-report", str(saved), "--flow", "C1"]) == 0
    saved.write_text("{}")
    assert analyze.main([str(path), "--from-report", str(saved)]) == 2
    saved.write_text('{"schema": "postern.analysis/2.0"}')
    assert analyze.main([str(path), "--from-report", str(saved)]) == 2
    assert "another version" in capsys.readouterr().err


def test_cuts_are_captures(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames, a flow, or everything; the capture itself is never overwritten."""
    out = tmp_path / "cut.pcap"
    assert analyze.main([str(path), "--frames", "2-4", "--cut", str(out)]) == 0
    with CaptureFile.open(out) as capture:
        assert len(list(capture.walk())) == 3
    assert analyze.main([str(path), "--flow", "C1", "--cut", str(out)]) == 0
    assert out.read_bytes() == path.read_bytes()
    assert "25 packets" in capsys.readouterr().err
    assert analyze.main([str(path), "--cut", str(path)]) == 2


def test_an_anonymised_cut_and_report_say_nothing(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No address, no payload and no name of the original is in either, and the cut gives the same counts."""
    out, saved = tmp_path / "cut.pcapng", tmp_path / "r.json"
    assert analyze.main([str(path), "--cut", str(out), "--anonymize", "--json", str(saved), "--quiet"]) == 0
    text = saved.read_text()
    assert CLIENT not in text
    assert SERVER not in text
    assert "GET" not in out.read_bytes().decode("latin-1")
    again = tmp_path / "again.json"
    assert analyze.main([str(out), "--json", str(again), "--quiet"]) == 0
    before, after = json.loads(text), json.loads(again.read_text())
    assert after["capture"]["packets"] == before["capture"]["packets"]
    assert after["tcp"]["labels"] == before["tcp"]["labels"]
    capsys.readouterr()


def test_standard_input_has_no_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said before anything is read."""
    assert analyze.main(["-", "--frames", "1"]) == 2
    assert "cannot be read twice" in capsys.readouterr().err


def test_colours_and_width_follow_the_terminal(path: Path) -> None:
    """On a terminal there are colours, unless NO_COLOR is set."""

    def run(**environment: str) -> bytes:
        master, slave = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli.analyze", str(path)],
                stdout=slave,
                stderr=slave,
                cwd=PROJECT,
                env={**os.environ, "TERM": "xterm", **environment},
            )
            os.close(slave)
            out = b""
            while True:
                try:
                    piece = os.read(master, 4096)
                except OSError:  # the other side was closed
                    break
                if not piece:
                    break
                out += piece
            assert process.wait(timeout=60) == 0
            return out
        finally:
            os.close(master)

    assert b"\x1b[1m" in run()
    assert b"\x1b[1m" not in run(NO_COLOR="1")


def test_an_interrupt_is_130(path: Path) -> None:
    """Ctrl-C ends it with the shell's number and no traceback."""
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli.analyze", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
        # Tests that run in the background of a shell inherit that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with fifo.open("wb", buffering=0) as writer:  # returns when the command has opened it
        writer.write(path.read_bytes()[:100])
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_the_start_loads_no_heavy_library(path: Path) -> None:
    """Neither scapy nor asyncio nor the event loop nor ctypes is imported for a summary."""
    code = (
        "import sys; from gateway.cli import analyze; analyze.main([sys.argv[1], '--quiet']); "
        "print([n for n in ('scapy', 'asyncio', 'ctypes', 'uvloop', 'bottle', 'jsonschema') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
