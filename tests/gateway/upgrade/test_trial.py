"""What a new version must show before it stays, and what is no reason to go back."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.upgrade import trial
from gateway.upgrade.slots import Slots

ZONE = {"interface": "br-guest", "address": "10.41.0.1/22"}
BASE = (
    "config network\n\tlist uplink 'eth0'\n"
    "config zone 'guest'\n\toption interface 'br-guest'\n\toption address '10.41.0.1/22'\n"
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every check that was made; all of them are well. The configuration is at `config` below the test's directory."""
    made: list[str] = []

    def zone() -> dict[str, str]:
        made.append("zone")
        return ZONE

    (tmp_path / "config").write_text(BASE)
    monkeypatch.setattr(trial, "CONFIG", tmp_path / "config")
    monkeypatch.setattr(trial, "LIMIT_S", -1.0)
    monkeypatch.setattr(trial, "_services_were_started", lambda: made.append("services"))
    monkeypatch.setattr(trial, "_zone", zone)
    monkeypatch.setattr(trial, "_answers", made.append)
    monkeypatch.setattr(trial, "_listens", lambda port: made.append(f"port {port}"))
    monkeypatch.setattr(trial, "_a_client_meets_the_login_page", lambda bridge: made.append(f"client on {bridge}"))
    return made


def slots_of(data: Path) -> Slots:
    """Slots whose data partition is a directory of the test."""
    return Slots("b", True, "/dev/null", "/dev/null", data)


def test_every_part_is_looked_at(tmp_path: Path, asked: list[str]) -> None:
    """Processes, posternd, portal, administration, and a client of our own."""
    trial.prove(slots_of(tmp_path))
    assert asked == ["services", "zone", "http://10.41.0.1:3990/", "https://127.0.0.1:8443/", "client on br-guest"]


@pytest.mark.parametrize(
    ("sections", "wanted"),
    [
        ("config uam\n\toption port '8081'\n", "http://10.41.0.1:8081/"),
        ("config admin\n\toption port '444'\n", "https://127.0.0.1:444/"),
        ("config admin\n\tlist interface 'eth0'\n\toption port '444'\n", "port 444"),
    ],
)
def test_it_looks_where_the_operator_has_put_them(tmp_path: Path, asked: list[str], sections: str, wanted: str) -> None:
    """Another port, or pages that are not served on the device itself, are no reason to go back."""
    (tmp_path / "config").write_text(BASE + sections)
    trial.prove(slots_of(tmp_path))
    assert wanted in asked


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (BASE + "config admin\n\toption enabled '0'\n", "127.0.0.1"),
        (BASE + "config postern\n\toption enabled '0'\n", ""),
    ],
)
def test_what_is_switched_off_is_not_asked_for(tmp_path: Path, asked: list[str], text: str, missing: str) -> None:
    """Neither administration pages nor a gate that the operator does not want."""
    (tmp_path / "config").write_text(text)
    trial.prove(slots_of(tmp_path))
    assert [line for line in asked if missing in line] == []


@pytest.mark.parametrize("fault", ["config", "zone", "client"])
def test_a_fault_is_said_in_a_sentence(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The operator reads it after the way back."""

    def fails(*words: object) -> Any:
        raise trial.Unproved("it is broken")

    match fault:
        case "config":
            (tmp_path / "config").write_text("option")
        case "zone":
            monkeypatch.setattr(trial, "_zone", fails)
        case "client":
            monkeypatch.setattr(trial, "_a_client_meets_the_login_page", fails)
    wanted = {"config": "configuration", "zone": "posternd does not answer", "client": "does not get to the login page"}
    with pytest.raises(trial.Unproved, match=wanted[fault]):
        trial.prove(slots_of(tmp_path))


@pytest.mark.parametrize(
    ("state", "well"), [("active", True), ("activating", True), ("inactive", False), ("failed", False)]
)
def test_nobody_waits_for_a_service_that_does_not_come(monkeypatch: pytest.MonkeyPatch, state: str, well: bool) -> None:
    """One that is starting again may come; one that is down was tried before the proof began."""
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 0, f"{state}\n", "")
    )
    if well:
        trial._services_were_started()
    else:
        with pytest.raises(trial.Unproved, match=f"posternd is {state}"):
            trial._services_were_started()


@contextmanager
def listening() -> Iterator[int]:
    """A port of this machine that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_listening_port_is_found_in_the_kernels_table() -> None:
    """Pages that are bound to another interface cannot be asked from the device itself."""
    check: Callable[[int], None] = trial._listens
    with listening() as port:
        check(port)
    with pytest.raises(trial.Unproved, match="nothing listens"):
        check(port)
