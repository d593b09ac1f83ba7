"""Dates of a certificate, and what they mean for the administration's pages."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Admin
from gateway.doctor.certificate import Served, Validity, judge_administration, read_validity
from gateway.doctor.rows import State

NOW, DAY = 1_800_000_000.0, 86400.0


def test_the_dates_of_a_real_certificate(tmp_path: Path) -> None:
    """One made by openssl for ten days is valid for ten days."""
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 10 -subj /CN=x -out crt -keyout key"
    )
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "crt").read_text("ascii"))
    found = read_validity(der)
    assert found.ends_unix - found.begins_unix == 10 * DAY
    for length in range(0, len(der), 7):
        if length < 60:
            with pytest.raises(ValueError):
                read_validity(der[:length])


@given(st.binary(max_size=200))
def test_no_octets_break_the_reader(octets: bytes) -> None:
    """What is no certificate is ValueError."""
    with pytest.raises(ValueError):
        read_validity(octets)


@pytest.mark.parametrize(
    ("validity", "state", "words"),
    [
        (Validity(NOW - DAY, NOW + 300 * DAY), State.OK, "300 days more"),
        (Validity(NOW - DAY, NOW + 3 * DAY), State.WARN, "expires in 3 days"),
        (Validity(NOW - DAY, NOW + 3600), State.WARN, "1.0 hours"),
        (Validity(NOW - 9 * DAY, NOW - 5 * DAY), State.FAIL, "expired 5 days ago"),
        (Validity(NOW + DAY, NOW + 300 * DAY), State.FAIL, "from the future"),
        (None, State.WARN, "Connection refused"),
    ],
)
def test_the_administrations_certificate(validity: Validity | None, state: State, words: str) -> None:
    """Expired fails, soon warns, and pages that do not answer warn."""
    row = judge_administration(Admin(), Served("127.0.0.1:8443", validity, "Connection refused"), NOW)
    assert row.state is state
    assert words in row.text


def test_pages_that_are_switched_off_need_no_certificate() -> None:
    """Nothing is judged."""
    assert judge_administration(Admin(enabled=False), Served(""), NOW).state is State.SKIPPED
