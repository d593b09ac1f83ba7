"""The form for new vouchers: what it lets through is what the daemon takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.accounts.codes import LONGEST, SHORTEST
from tests.webui.admin.visitor import admin, logged_in
from tests.webui.wire import run
from webui.admin.vouchers import LENGTHS


def test_the_lengths_are_those_of_the_daemon() -> None:
    """For each alphabet."""
    assert {name: (shortest, LONGEST) for name, shortest in SHORTEST.items()} == LENGTHS


@pytest.mark.parametrize(
    ("alphabet", "length", "taken"),
    [
        ("digits", "7", False),
        ("digits", "8", True),
        ("digits", "20", True),
        ("digits", "21", False),
        ("letters", "5", False),
        ("letters", "6", True),
        ("letters", "", True),
    ],
)
def test_a_length_that_is_not_possible_is_told_in_the_form(
    tmp_path: Path, alphabet: str, length: str, taken: bool
) -> None:
    """What was typed stays."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(1)
            before = len(fake.called("vouchers.create"))
            logged_in(fake, visitor)
            answer = await visitor.post("/vouchers/new", alphabet=alphabet, length=length, note="for <you>")
            assert answer.status == (303 if taken else 400)
            assert (len(fake.called("vouchers.create")) > before) == taken
            if not taken:
                assert "The length of the code" in answer.text
                assert "for &lt;you&gt;" in answer.text

    run(story())


def test_the_last_day_ends_at_midnight_of_the_gateway(tmp_path: Path) -> None:
    """In its own time zone; a day that is over, or is none, is told."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert 'name="expires" type="date"' in (await visitor.get("/vouchers/new")).text
            await visitor.post("/vouchers/new", expires="2030-06-30")
            # Europe/Paris is two hours ahead in summer.
            assert fake.called("vouchers.create")[-1]["expires_unix"] == 1_909_094_400 - 2 * 3600
            for wrong in ("2001-01-01", "tomorrow", "9999-12-31", "2030-02-30"):
                assert (await visitor.post("/vouchers/new", expires=wrong)).status == 400
            assert len(fake.called("vouchers.create")) == 1

    run(story())
