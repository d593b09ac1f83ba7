"""Users of the administration at once: ten with locust, who must meet no failure, and twenty at a full queue."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from gateway.analysis import job
from tests.bench.rows import Row, most
from tests.bench.web_stage import WebStage, resident_mb
from tests.gateway.analysis.made_packets import conversation, pcap
from tests.netns.harness import PROJECT
from tests.webui.admin import queue_users
from tests.webui.admin.operators import Operator
from tests.webui.admin.test_captures import long_capture

LOCUST: Final = PROJECT / ".cache" / "locust" / "bin" / "locust"
PEOPLE: Final = 10
CROWD: Final = 20
_FLAT_MB: Final = 4.0
_WARM_SHARE: Final = 0.3  # of the time, until threads and caches are as large as they get
_DONE_S: Final = 60.0


def with_locust(stage: WebStage, folder: Path, seconds: int) -> list[Row]:
    """Ten administrators for so long, with the versions of `locust.lock` in an environment of their own."""
    title = f"{PEOPLE} users for {seconds} s with locust"
    if not LOCUST.exists():
        return [
            Row(title, f"was not measured: {LOCUST} is missing; ./build.sh bench web installs it", "no failure", False)
        ]
    people = stage.people(PEOPLE)
    capture, outcome = folder / "locust.pcap", folder / "locust.json"
    capture.write_bytes(pcap(conversation(lost=True)))
    outcome.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "POSTERN_PEOPLE": ":".join(name for name, _ in people),
        "POSTERN_PASSWORD": people[0][1],
        "POSTERN_CAPTURE": str(capture),
        "POSTERN_OUTCOME": str(outcome),
    }
    command = [str(LOCUST), "-f", str(PROJECT / "tests/bench/locustfile.py"), "--headless", "--only-summary"]
    command += ["--users", str(PEOPLE), "--spawn-rate", "2", "--run-time", f"{seconds}s", "--stop-timeout", "10"]
    command += ["--host", stage.administration.origin, "--loglevel", "WARNING"]
    with (folder / "locust.log").open("w") as log:
        subprocess.run(command, check=False, env=environment, cwd=folder, stdout=log, stderr=log, timeout=seconds + 120)
    if not outcome.exists():
        print((folder / "locust.log").read_text(), file=sys.stderr)
        return [Row(title, "locust did not end as it should", "no failure", False)]
    told = json.loads(outcome.read_text(encoding="utf-8"))
    times = f"{told['p50_ms']:.0f} / {told['p95_ms']:.0f} / {told['p99_ms']:.0f} ms"
    held = told["failures"] == 0 and told["requests"] > seconds
    return [
        Row(title, f"{told['requests']} requests, {told['failures']} failed", "no failure", held),
        Row("  their time, p50 / p95 / p99", f"{times} at {told['per_s']:.0f}/s"),
        *(Row("  failure", error) for error in told["errors"][:10]),
    ]


def at_a_full_queue(stage: WebStage, seconds: int) -> list[Row]:
    """Twenty users who upload, watch, cancel and delete all the time, whatever they are told."""
    operators = []
    for number, (name, password) in enumerate(stage.people(CROWD)):
        operator = Operator(stage.port, source=f"127.0.1.{number + 1}")  # as from so many desks
        operator.log_in(name, password)
        operator.make_token("read", "captures")
        operators.append(operator)
    sizes: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            sizes.append((time.monotonic(), resident_mb(stage.admin_pid)))

    looker = threading.Thread(target=look)
    began = time.monotonic()
    looker.start()
    try:
        tally = queue_users.run(operators, [pcap(conversation(lost=True)), long_capture(200_000)], seconds)
    finally:
        ended.set()
        looker.join()
    warm = [size for at, size in sizes if at > began + _WARM_SHARE * seconds]
    half = len(warm) // 2
    before, after = (sum(part) / max(1, len(part)) for part in (warm[:half], warm[half:]))
    turned_away = tally.count("upload", 503)
    shown = (
        f"{sum(tally.answers.values())} answers, {tally.count('upload', 202)} uploads taken, {turned_away} turned away"
    )
    works = _still_works(stage)
    return [
        Row(
            f"{CROWD} users at a full queue for {seconds} s",
            shown,
            "503 by the book",
            not tally.wrong and turned_away > 0,
        ),
        *(Row("  wrong", complaint[:300]) for complaint in tally.wrong[:10]),
        Row("  slowest answer", f"{tally.slowest_s:.1f} s"),
        most(
            "  growth of the web process meanwhile",
            after - before,
            _FLAT_MB,
            "MB",
            f"{after - before:+.1f} MB to {after:.1f} MB",
        ),
        Row("  an upload afterwards", works, "completed", works == "completed"),
    ]


def _still_works(stage: WebStage) -> str:
    """How an upload ends after all that."""
    deadline = time.monotonic() + _DONE_S
    for state in job.listing(stage.captures.spool):
        stage.operator.ask("DELETE", f"/api/v1/reports/{state.id}")
    while time.monotonic() < deadline:
        answer = stage.operator.upload(pcap(conversation(lost=True)), "afterwards.pcap")
        if answer.status == 202:
            break
        time.sleep(1.0)
    else:
        return f"not taken: {answer.status}"
    task = str(answer.json()["task_id"])
    for _ in itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.count()):
        status = str(stage.operator.ask("GET", f"/api/v1/status/{task}").json()["status"])
        if status not in job.WAITING:
            return status
        time.sleep(0.2)
    return "not done in time"
