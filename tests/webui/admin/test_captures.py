"""Captures over TCP: a real web process, a real worker, and clients that behave, break off, or mean harm."""

from __future__ import annotations

import gzip
import html
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis import job
from gateway.analysis.frames import CaptureFile
from tests.gateway.analysis.made_packets import CLIENT, SERVER, conversation, pcap, udp
from tests.webui.admin.capture_admin import TOKEN, Web, end, running_web, running_worker, trusting

SMALL = pcap(conversation(lost=True))
HOSTILE = "../../<img src=x onerror=alert(1)>'=1+1\u202e\x1b.pcap"
ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def long_capture(packets: int = 300_000) -> bytes:
    """A capture whose analysis takes seconds."""
    frames = [udp((f"10.1.{n % 250}.{n // 250 % 250}", 1024 + n % 50000), (SERVER, 53), b"x" * 20) for n in range(2000)]
    once = pcap(frames)
    return once[:24] + once[24:] * (packets // 2000)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty spool."""
    path = tmp_path / "spool"
    path.mkdir()
    return path


@pytest.fixture
def web(spool: Path) -> Iterator[Web]:
    """The administration alone: whatever is uploaded waits."""
    with running_web(spool) as running:
        yield running


@pytest.fixture
def both(spool: Path) -> Iterator[Web]:
    """The administration and the worker."""
    with running_worker(spool), running_web(spool) as running:
        yield running


def upload(web: Web, data: bytes, name: str = "a.pcap", **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Upload a body."""
    status, fields, body = web.ask("POST", "/upload", data, {"X-Filename": name, **headers})
    return status, fields, json.loads(body)


def status_of(web: Web, task: str) -> dict[str, Any]:
    """Where a job stands."""
    found: dict[str, Any] = json.loads(web.ask("GET", f"/status/{task}")[2])
    return found


def wait_for(what: Callable[[], bool], why: str, seconds: float = 60.0) -> None:
    """Until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def finished(web: Web, task: str) -> dict[str, Any]:
    """The job once it has ended."""
    wait_for(lambda: status_of(web, task)["status"] not in ("pending", "processing"), "the job ends")
    return status_of(web, task)


def jobs_in(spool: Path) -> list[Path]:
    """Directories of jobs."""
    return [path for path in spool.iterdir() if path.is_dir()]


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart body and its type; each part has the parameters of its Content-Disposition."""
    body = b"".join(
        b"--b0undary\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    )
    return body + b"--b0undary--\r\n", "multipart/form-data; boundary=b0undary"


def events(answer: http.client.HTTPResponse, count: int) -> list[dict[str, Any]]:
    """The next events of a stream, fewer at its end."""
    found: list[dict[str, Any]] = []
    current: dict[str, Any] = {}
    while len(found) < count:
        line = answer.readline().decode()
        if not line:
            break
        name, _, value = line.rstrip("\n").partition(": ")
        if name in ("id", "event"):
            current[name] = value
        elif name == "data":
            current["data"] = json.loads(value)
        elif not line.strip() and "data" in current:
            found.append(current)
            current = {}
    return found


def stream(web: Web, task: str, last_id: str = "") -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
    """The progress of a job."""
    connection = web.connect()
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Last-Event-ID": last_id} if last_id else {})
    connection.request("GET", f"/api/v1/progress/{task}", headers=headers)
    return connection, connection.getresponse()


def test_from_the_upload_to_one_packet(both: Web) -> None:
    """Every page and every download of a report, with a file name that means harm."""
    status, fields, accepted = upload(both, SMALL, "%2e%2e%2f%3Cb%3Eo%26.pcap")
    assert (status, accepted["filename"]) == (202, "<b>o&.pcap")
    task = accepted["task_id"]
    assert fields["location"] == f"/api/v1/status/{task}"
    connection, answer = stream(both, task)
    seen = events(answer, 1000)
    connection.close()
    assert [event["event"] for event in seen][-1] == "done"
    identities = [int(event["id"]) for event in seen if "id" in event]
    assert identities == sorted(identities)
    percents = [event["data"]["percent"] for event in seen]
    assert percents == sorted(percents)
    row = finished(both, task)
    assert (row["status"], row["percent"], row["packets"]) == ("completed", 100.0, len(conversation(lost=True)))

    for path in ("", "/flows", "/flows/C1", "/flows/C1?data=orig&at=3", "/packets/1", "/tcp", "/dns", "/exports"):
        code, fields, text = both.page("GET", f"/captures/{task}{path}")
        assert code == 200, path
        assert "<b>o" not in text
        assert "unsafe" not in fields["content-security-policy"]
    assert "&lt;b&gt;o&amp;.pcap" in both.page("GET", f"/captures/{task}")[2]
    assert "Ethernet" in both.page("GET", f"/captures/{task}/packets/1")[2]
    assert "Time and sequence" in both.page("GET", f"/captures/{task}/flows/C1")[2]
    for path in ("/packets/0", "/packets/99999", "/packets/x", "/flows/C99", "/nothing"):
        assert both.page("GET", f"/captures/{task}{path}")[0] == 404

    for path, kind in {
        "json": "application/json",
        "csv": "application/zip",
        "csv/flows": "text/csv; charset=utf-8",
        "capture": "application/vnd.tcpdump.pcap",
        "capture?flow=C1": "application/vnd.tcpdump.pcap",
        "capture?anonymise=true": "application/vnd.tcpdump.pcap",
        "anonymised": "application/json",
    }.items():
        code, fields, body = both.ask("GET", f"/reports/{task}/{path}")
        assert (code, fields["content-type"]) == (200, kind), path
        assert fields["content-disposition"].startswith("attachment; filename=")
        assert re.fullmatch(r"[\w.-]+", fields["content-disposition"].split('"')[1])
        assert "sandbox" in fields["content-security-policy"]
        assert body
    assert both.ask("GET", f"/reports/{task}/capture")[2] == SMALL
    with CaptureFile.of(io.BytesIO(both.ask("GET", f"/reports/{task}/capture?flow=C1")[2])) as cut:
        assert len(list(cut.walk())) == len(conversation(lost=True))
    with zipfile.ZipFile(io.BytesIO(both.ask("GET", f"/reports/{task}/csv")[2])) as archive:
        assert "flows.csv" in archive.namelist()
    code, fields, body = both.ask("GET", f"/report/{task}")
    assert (code, fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert "sha256-" in fields["content-security-policy"]
    assert both.ask("GET", f"/report/{task}", headers={"If-None-Match": fields["etag"]})[0] == 304
    assert both.ask("GET", f"/reports/{task}/capture?flow=C9")[0] == 404

    assert both.ask("DELETE", f"/reports/{task}")[0] == 204
    assert both.ask("DELETE", f"/reports/{task}")[0] == 404
    assert jobs_in(both.spool) == []


def test_the_sixth_waits_outside(web: Web) -> None:
    """503 with Retry-After and nothing left behind; the five are worked off in order once there is a worker."""
    tasks = []
    for number in range(5):
        code, _, accepted = upload(web, SMALL, f"{number}.pcap")
        assert code == 202
        tasks.append(accepted["task_id"])
    assert [status_of(web, task)["queue_position"] for task in tasks] == [1, 2, 3, 4, 5]
    code, fields, problem = upload(web, long_capture(200_000))
    assert (code, problem["code"], fields["content-type"]) == (503, "queue-full", "application/problem+json")
    assert 5 <= int(fields["retry-after"]) <= 300
    assert len(jobs_in(web.spool)) == 5
    queue = json.loads(web.ask("GET", "/queue/status")[2])
    assert (queue["max"], queue["waiting"], queue["available"]) == (5, 5, 0)
    assert json.loads(web.ask("GET", "/health", token="")[2])["captures"]["status"] == "failing"
    with running_worker(web.spool):
        ended = [finished(web, task)["finished_unix"] for task in tasks]
    assert ended == sorted(ended)
    history = json.loads(web.ask("GET", "/history?limit=2")[2])
    assert [row["filename"] for row in history["rows"]] == ["4.pcap", "3.pcap"]
    older = json.loads(web.ask("GET", f"/history?limit=2&before={history['before']}")[2])
    assert [row["filename"] for row in older["rows"]] == ["2.pcap", "1.pcap"]
    assert json.loads(web.ask("GET", "/history?q=3.pcap")[2])["total"] == 1


def test_an_analysis_is_cancelled_and_another_deleted(both: Web) -> None:
    """One that runs within three seconds, one that waits while the other runs; a running one can be deleted."""
    slow = long_capture(1_000_000)
    running, waiting = (upload(both, slow)[2]["task_id"] for _ in range(2))
    wait_for(lambda: status_of(both, running)["phase"] == "reading", "the analysis runs")
    assert both.ask("GET", f"/reports/{running}/json")[0] == 409
    assert both.page("GET", f"/captures/{running}")[0] == 200
    for task in (waiting, running):
        assert both.ask("POST", f"/cancel/{task}")[0] == 202
        wait_for(lambda task=task: status_of(both, task)["status"] == "cancelled", "it was cancelled", 3)  # type: ignore[misc]
    third = upload(both, slow)[2]["task_id"]
    wait_for(lambda: status_of(both, third)["phase"] == "reading", "the next one runs")
    assert both.ask("DELETE", f"/reports/{third}")[0] == 204
    assert both.ask("GET", f"/status/{third}")[0] == 404
    assert not (both.spool / third).exists()


def test_a_job_survives_the_death_of_worker_and_web(spool: Path) -> None:
    """The worker is killed in the middle and started again; the web process too; a reader goes on by Last-Event-ID."""
    with running_web(spool) as web:
        with running_worker(spool) as worker:
            task = upload(web, long_capture(1_000_000))[2]["task_id"]
            connection, answer = stream(web, task)
            seen = events(answer, 4)
            last = next(event["id"] for event in reversed(seen) if "id" in event)
            connection.close()
            again, answer = stream(web, task, last)
            following = events(answer, 1)[0]
            assert int(following["id"]) > int(last)
            again.close()
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        assert status_of(web, task)["status"] == "processing"
        with running_worker(spool):
            wait_for(lambda: (job.load(spool / task) or job.State("", "")).attempts == 2, "it was taken up again")
            end(web.process)
            with running_web(spool) as other:
                connection, answer = stream(other, task, following["id"])
                seen = events(answer, 1000)
                connection.close()
                assert seen[-1]["event"] == "done"
                assert finished(other, task)["status"] == "completed"
                connection, answer = stream(other, task)
                assert [event["event"] for event in events(answer, 9)] == ["done"]
                connection.close()
                connection, answer = stream(other, task, seen[-1]["id"])
                assert answer.status == 204
                connection.close()


def test_what_is_no_capture_is_refused_by_name(web: Web) -> None:
    """Told while it comes in, with its own status; nothing is kept."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(SMALL) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    netlink = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 253) + bytes(100)
    for data, code, name in (
        (b"<html>not a capture</html>" * 9, 415, "not-a-capture"),
        (gzip.compress(b"text " * 99), 415, "not-a-capture"),
        (bomb, 422, "gzip-bomb"),
        (b"\x1f\x8b" + b"x" * 500, 422, "gzip-corrupt"),
        (netlink, 422, "unsupported-linktype"),
        (SMALL[:24], 422, "empty"),
        (b"", 400, "bad-upload"),
    ):
        status, _, problem = upload(web, data)
        assert (status, problem["code"]) == (code, name)
        assert problem["detail"]
    wait_for(lambda: not jobs_in(web.spool), "nothing is left")
    assert json.loads(web.ask("GET", "/queue/status")[2])["uploading"] == 0


def test_a_form_is_taken_with_its_token_only(both: Web) -> None:
    """The plain form of a browser without scripts: its token first, then one file, and all of it."""
    file = (f'name="file"; filename="{HOSTILE}"', SMALL)
    good, kind = form(('name="csrf"', b"csrf-of-ada"), file)
    status, fields, _ = both.page("POST", "/captures/upload", good, Content_Type=kind, **ORIGIN)
    assert status == 303
    task = fields["location"].rpartition("/")[2]
    assert finished(both, task)["filename"] == "<img src=x onerror=alert(1)>'=1+1.pcap"
    listed = both.page("GET", "/captures")[2]
    assert html.escape("<img src=x onerror=alert(1)>") in listed
    assert "<img src=x" not in listed

    before = len(jobs_in(both.spool))
    for body, wanted in (
        (form(file)[0], 403),
        (form(('name="csrf"', b"wrong"), file)[0], 403),
        (form(file, ('name="csrf"', b"csrf-of-ada"))[0], 403),
        (form(('name="csrf"', b"csrf-of-ada"))[0], 400),
        (form(('name="csrf"', b"csrf-of-ada"), ('name="file"; filename=""', b""))[0], 400),
        (form(('name="csrf"', b"csrf-of-ada"), file, file)[0], 400),
        (good[:-30], 400),
    ):
        assert both.page("POST", "/captures/upload", body, Content_Type=kind, **ORIGIN)[0] == wanted
    elsewhere = {"Content_Type": kind, "Sec-Fetch-Site": "cross-site"}
    assert both.page("POST", "/captures/upload", good, **elsewhere)[0] == 403
    wait_for(lambda: len(jobs_in(both.spool)) == before, "nothing is left of them")
    # The same form to the API, where the token is in the header or, with a bearer token, nowhere.
    status, _, body_text = both.ask("POST", "/upload", form(file)[0], {"Content-Type": kind})
    assert (status, json.loads(body_text)["status"]) == (202, "pending")
    assert both.page("POST", "/api/v1/upload", SMALL, **ORIGIN)[0] == 403


def test_an_upload_that_breaks_off_leaves_nothing(web: Web) -> None:
    """Closed in the middle, raw or as a form; two that hang take the two places and give them back."""
    body, kind = form(('name="file"; filename="a.pcap"', SMALL * 50))
    head = f"POST /api/v1/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 900000\r\n"
    hanging = []
    for more, data in (("", SMALL * 9), (f"Content-Type: {kind}\r\n", body[:9000])):
        raw = socket.create_connection(("127.0.0.1", web.port))
        secured = trusting().wrap_socket(raw)
        secured.sendall((head + more + "\r\n").encode() + data)
        hanging.append(secured)

    def uploading() -> int:
        found: int = json.loads(web.ask("GET", "/queue/status")[2])["uploading"]
        return found

    wait_for(lambda: len(jobs_in(web.spool)) == 2 and uploading() == 2, "both are being written")
    code, fields, _ = upload(web, SMALL)
    assert code == 503
    assert "retry-after" in fields
    for secured in hanging:
        secured.close()
    wait_for(lambda: not jobs_in(web.spool) and uploading() == 0, "nothing is left of them")
    assert upload(web, SMALL)[0] == 202


def test_a_file_over_the_limit_is_refused_at_its_head_or_when_it_gets_there(spool: Path) -> None:
    """With a length by the length, without one by what came; the disk is given back."""
    with running_web(spool, limit_mb=1) as web:
        large = long_capture(40_000)
        assert upload(web, large)[0] == 413

        def chunks() -> Iterator[bytes]:
            for at in range(0, len(large), 1 << 16):
                yield large[at : at + (1 << 16)]

        status, _, body = web.ask("POST", "/upload", chunks(), {"X-Filename": "a.pcap"})
        assert (status, json.loads(body)["code"]) == (413, "too-large")
        wait_for(lambda: not jobs_in(spool), "nothing is left")
        fits = long_capture(4_000)
        assert web.ask("POST", "/upload", iter([fits]))[0] == 202


def test_memory_does_not_grow_with_the_file(web: Web) -> None:
    """A hundred megabytes through a web process cost it a few, raw and as a form."""
    once = long_capture(20_000)
    large = once[:24] + once[24:] * (100_000_000 // len(once))
    before = web.resident_kb()
    assert upload(web, large, "large.pcap")[0] == 202
    body, kind = form(('name="file"; filename="large.pcap"', large))
    assert web.ask("POST", "/upload", body, {"Content-Type": kind})[0] == 202
    assert web.resident_kb("VmHWM") - before < 12_000
    sizes = sorted((path / job.CAPTURE).stat().st_size for path in jobs_in(web.spool))
    assert sizes == [len(large)] * 2


def test_others_see_only_what_is_theirs(both: Web) -> None:
    """Administrators see every capture, operators their own, viewers none; nobody without a login."""
    task = upload(both, SMALL)[2]["task_id"]
    finished(both, task)

    def get(path: str, name: str) -> int:
        connection = both.connect()
        try:
            connection.request("GET", path, headers={"Cookie": f"__Host-postern={name}"} if name else {})
            return connection.getresponse().status
        finally:
            connection.close()

    assert get(f"/captures/{task}", "ada") == get("/captures", "otto") == 200
    assert get(f"/captures/{task}", "otto") == get(f"/api/v1/reports/{task}/json", "otto") == 404
    assert get("/captures", "vera") == get(f"/api/v1/reports/{task}/json", "vera") == 403
    assert get(f"/captures/{task}", "") in (302, 303)
    assert get(f"/api/v1/reports/{task}/json", "") == 401
    for strange in ("..", "%2e%2e", "x" * 300, "0b7e1f2a-52d4-4c1a-9f0e-00000000000g"):
        assert get(f"/captures/{strange}", "ada") == 404
        assert get(f"/api/v1/status/{strange}", "ada") in (400, 404)


def test_the_capture_may_be_gone_before_its_report(both: Web) -> None:
    """Then pages that need it say so, and the rest goes on; what has expired is gone with 410."""
    data = pcap([*conversation(), udp((CLIENT, 1), (SERVER, 53), b"x")])
    task = upload(both, gzip.compress(data), "a.pcap.gz")[2]["task_id"]
    finished(both, task)
    assert gzip.decompress(both.ask("GET", f"/reports/{task}/capture")[2]) == data
    assert both.page("GET", f"/captures/{task}/packets/2")[0] == 200
    for name in (job.CAPTURE, job.UNPACKED):
        (both.spool / task / name).unlink(missing_ok=True)
    assert both.page("GET", f"/captures/{task}")[0] == 200
    assert "was removed" in both.page("GET", f"/captures/{task}/flows/C1")[2]
    assert both.page("GET", f"/captures/{task}/packets/2")[0] == 404
    assert both.ask("GET", f"/reports/{task}/capture")[0] == 404
    state = job.load(both.spool / task)
    assert state is not None
    for path in (both.spool / task).iterdir():
        if path.name != job.STATE:
            path.unlink()
    job.save(both.spool / task, job.State(state.id, state.name, status="expired", owner="ada"))
    assert both.ask("GET", f"/reports/{task}/json")[0] == 410
    assert both.ask("GET", f"/progress/{task}")[0] == 410
    assert status_of(both, task)["status"] == "expired"
    assert "removed after its time" in both.page("GET", f"/captures/{task}")[2]
    shutil.rmtree(both.spool / task)
    assert both.page("GET", f"/captures/{task}")[0] == 404
