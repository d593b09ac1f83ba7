"""What an administrator does with the web interface, for locust: pages as a browser asks for them, programs by token.

    POSTERN_PEOPLE=ada:bob POSTERN_PASSWORD=... POSTERN_CAPTURE=a.pcap POSTERN_OUTCOME=out.json locust -f ... --headless

`tests.bench.web` starts it. Each user is a person of its own (from POSTERN_PEOPLE), who logs in by the form first. A
queue of captures that is full is told in a well-formed way and no failure: the person comes back later, as it says.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import urllib3
from locust import HttpUser, between, events, task

urllib3.disable_warnings()  # the certificate was made on the device a moment ago

_people = itertools.cycle(os.environ["POSTERN_PEOPLE"].split(":"))
_CAPTURE = Path(os.environ["POSTERN_CAPTURE"]).read_bytes()
_SEARCHES = ("10.41.128", "02:5e", "held", "nobody-has-this-name")


def _hidden(text: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', text)
    return found[1] if found is not None else ""


class Administrator(HttpUser):
    """One person with a browser, and a program of theirs with a token."""

    wait_time = between(0.5, 2.5)

    def on_start(self) -> None:
        """Log in, and make a token for the program."""
        self.client.verify = False
        self.reports: list[str] = []
        page = self.client.get("/login", name="log in")
        fields = {"form": _hidden(page.text, "form"), "name": next(_people), "next": "/"}
        self.client.post("/login", {**fields, "password": os.environ["POSTERN_PASSWORD"]}, name="log in")
        csrf = _hidden(self.client.get("/account", name="account").text, "csrf")
        wanted = {"name": "locust", "scopes": ["read", "captures"]}
        made = self.client.post("/api/v1/tokens", json=wanted, headers={"X-CSRF-Token": csrf}, name="make a token")
        self.bearer = {"Authorization": f"Bearer {made.json()['token']}"}

    @task(6)
    def dashboard(self) -> None:
        """The first page."""
        self.client.get("/", name="dashboard")

    @task(6)
    def clients(self) -> None:
        """The table, and a search in it."""
        self.client.get("/clients", name="clients")
        for words in _SEARCHES:
            self.client.get("/clients", params={"q": words}, name="clients, search")

    @task(4)
    def captures(self) -> None:
        """The list of captures."""
        self.client.get("/captures", name="captures")

    @task(1)
    def upload(self) -> None:
        """A small capture, by the program."""
        headers = {**self.bearer, "X-Filename": "load.pcap", "Content-Type": "application/octet-stream"}
        with self.client.post(
            "/api/v1/upload", _CAPTURE, headers=headers, name="upload", catch_response=True
        ) as answer:
            if answer.status_code == 202:
                self.reports = [answer.json()["task_id"], *self.reports[:4]]
            elif answer.status_code == 503 and answer.json().get("code") == "queue-full":
                answer.success()

    @task(4)
    def report(self) -> None:
        """The pages of a report that is done."""
        for identity in self.reports:
            status = self.client.get(f"/api/v1/status/{identity}", headers=self.bearer, name="status of a capture")
            if status.json().get("status") == "completed":
                for section in ("", "/flows", "/tcp", "/hosts"):
                    self.client.get(f"/captures/{identity}{section}", name=f"report{section}")
                return

    @task(3)
    def program(self) -> None:
        """What a program that watches the gateway asks."""
        for path in ("status", "clients", "activity", "queue/status", "history"):
            self.client.get(f"/api/v1/{path}", headers=self.bearer, name=f"api {path}")


@events.quitting.add_listener
def write_outcome(environment: Any, **_: Any) -> None:  # Any: locust's own types are not known here
    """Leave the figures where the benchmark finds them."""
    total = environment.stats.total
    errors = [f"{error.occurrences} times {error.name}: {error.error}" for error in environment.stats.errors.values()]
    outcome = {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "per_s": total.total_rps,
        "p50_ms": total.get_response_time_percentile(0.5),
        "p95_ms": total.get_response_time_percentile(0.95),
        "p99_ms": total.get_response_time_percentile(0.99),
        "errors": errors,
    }
    Path(os.environ["POSTERN_OUTCOME"]).write_text(json.dumps(outcome), encoding="utf-8")
