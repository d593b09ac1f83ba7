"""Many users at the queue of captures, which is full all the time: each uploads, watches, asks, cancels and deletes.

Every answer is looked at: a refusal is a problem document that says when to come back, and nothing else ends in 5xx.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.webui.admin.operators import Answer, Operator

PROBLEM: Final = "application/problem+json"
_PAUSE_S: Final = 0.3  # of a user, about; nobody waits as long as Retry-After says, which is the point
_WATCH_S: Final = 3.0


@dataclass
class Tally:
    """What users met."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)  # by what was asked, and the status
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, answer: Answer, took_s: float, *accepted: int) -> None:
        """Count an answer, and keep what is wrong with it."""
        complaint = ""
        if is_turned_away(answer):
            pass
        elif answer.status not in accepted:
            complaint = f"{what}: {answer.status} {answer.headers} {answer.body[:300]!r}"
        with self._lock:
            self.answers[what, answer.status] += 1
            self.slowest_s = max(self.slowest_s, took_s)
            if complaint:
                self.wrong.append(complaint)

    def broken(self, what: str, err: Exception) -> None:
        """Count a request that had no whole answer."""
        with self._lock:
            self.wrong.append(f"{what}: {err!r}")

    def count(self, what: str, status: int) -> int:
        """How many answers of one kind there were."""
        return self.answers[what, status]


def is_turned_away(answer: Answer) -> bool:
    """Whether this is the refusal of somebody who comes too often or to a full queue, as programs can read it."""
    if answer.status not in (429, 503) or answer.headers.get("content-type") != PROBLEM:
        return False
    problem = json.loads(answer.body)
    wait = answer.headers.get("retry-after", "")
    return bool(problem["status"] == answer.status and problem["detail"] and wait.isdigit() and 1 <= int(wait) <= 300)


def run(operators: Sequence[Operator], captures: Sequence[bytes], seconds: float) -> Tally:
    """Have all operators use the queue for so long; returns what they met."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_user, args=(operator, captures, tally, deadline, number), daemon=True)
        for number, operator in enumerate(operators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
        if thread.is_alive():
            tally.wrong.append("a user never came back")
    return tally


def _user(operator: Operator, captures: Sequence[bytes], tally: Tally, deadline: float, number: int) -> None:
    chance = random.Random(number)
    for turn in itertools.count(number):
        if time.monotonic() >= deadline:
            return
        what = "upload"
        try:
            began = time.monotonic()
            answer = operator.upload(captures[turn % len(captures)], f"user{number}-{turn}.pcap")
            tally.note(what, answer, time.monotonic() - began, 202)
            if answer.status == 202:
                task = str(answer.json()["task_id"])
                what = "progress"
                _watch(operator, task, tally, min(deadline, time.monotonic() + _WATCH_S))
                last = chance.choice(("keep", "cancel", "delete"))
                if last != "keep":
                    verb, path = ("POST", "cancel") if last == "cancel" else ("DELETE", "reports")
                    what = last
                    _ask(operator, tally, what, verb, f"/api/v1/{path}/{task}", 202, 204)
            for what in ("queue/status", "history"):
                _ask(operator, tally, what, "GET", f"/api/v1/{what}", 200)
        except (OSError, http.client.HTTPException) as err:
            tally.broken(what, err)
        time.sleep(_PAUSE_S * (0.5 + chance.random()))


def _ask(operator: Operator, tally: Tally, what: str, verb: str, path: str, *accepted: int) -> None:
    began = time.monotonic()
    answer = operator.ask(verb, path)
    tally.note(what, answer, time.monotonic() - began, *accepted)


def _watch(operator: Operator, task: str, tally: Tally, until: float) -> None:
    """Look at the live progress of a job for a while, and go away in the middle."""
    connection = operator.connect()
    try:
        began = time.monotonic()
        connection.request("GET", f"/api/v1/progress/{task}", headers=operator.headers())
        response = connection.getresponse()
        body = response.readline() if response.status == 200 else response.read()
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
        tally.note("progress", answer, time.monotonic() - began, 200)
        while response.status == 200 and time.monotonic() < until and response.readline():
            pass
    finally:
        connection.close()
