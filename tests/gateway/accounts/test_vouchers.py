"""What a voucher grants, and when it is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.accounts.users import AccountError
from gateway.accounts.vouchers import (
    Batch,
    Voucher,
    VoucherState,
    check_batch,
    grant_of,
    named,
    parse_id,
    state_of,
    why_refused,
)
from gateway.session.model import Counters, Limits, UsedBefore

UNIX = 1_800_000_000.0
BATCH = Batch(3, bytes(16), "digits", 10, UNIX - 100)


def voucher(batch: Batch = BATCH, **values: object) -> Voucher:
    """Number 17 of a batch."""
    return replace(Voucher(batch, 17), **values)  # type: ignore[arg-type]  # tests name fields of Voucher


def test_its_names_tell_batch_and_number_and_never_the_code() -> None:
    """Sessions and accounting show which voucher it is; nobody can log in with that."""
    assert voucher().id == "3-17"
    assert voucher().name == "voucher-3-17"
    assert named("voucher-3-17") == (3, 17) == parse_id("3-17") == parse_id("voucher-3-17")
    assert named("alice") is None
    assert named("voucher-0-1") is None
    with pytest.raises(AccountError, match="not a voucher's id"):
        parse_id("17")


def test_the_validity_runs_from_the_first_use_and_the_date_holds_for_all() -> None:
    """Whichever comes first ends it."""
    batch = replace(BATCH, validity_s=3600, expires_unix=UNIX + 86400)
    assert voucher(batch).ends_unix == UNIX + 86400
    used = voucher(batch, first_used_unix=UNIX)
    assert used.ends_unix == UNIX + 3600
    assert state_of(used, UNIX + 3599) is VoucherState.ACTIVE
    assert state_of(used, UNIX + 3600) is VoucherState.EXPIRED
    assert state_of(voucher(batch), UNIX + 86400) is VoucherState.EXPIRED
    assert state_of(used, None) is VoucherState.ACTIVE, "a clock that was never set ends nothing"


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        (Limits(session_time_s=60), {"used_s": 60}),
        (Limits(upload_bytes=10), {"upload_bytes": 10}),
        (Limits(download_bytes=10), {"download_bytes": 11}),
        (Limits(total_bytes=10), {"upload_bytes": 4, "download_bytes": 6}),
    ],
)
def test_it_is_used_up_when_any_of_its_budgets_is(limits: Limits, used: dict[str, int]) -> None:
    """Time online, octets up, down, or together."""
    item = voucher(replace(BATCH, limits=limits), first_used_unix=UNIX, **used)
    assert state_of(item, UNIX) is VoucherState.USED_UP
    assert why_refused(item, "guest", UNIX) == "used_up"


def test_it_lets_in_where_it_is_good_for() -> None:
    """A voucher of one zone is no voucher elsewhere; a revoked one is none anywhere."""
    item = voucher(replace(BATCH, zone="pool"))
    assert why_refused(item, "pool", UNIX) == ""
    assert why_refused(item, "guest", UNIX) == "elsewhere"
    assert why_refused(voucher(revoked_unix=UNIX), "guest", UNIX) == "revoked"


def test_the_grant_says_what_was_used_and_leaves_nothing_to_the_zone() -> None:
    """0 stands for no limit, so that the zone's own time does not cut a voucher of a week."""
    batch = replace(BATCH, devices=2, validity_s=3600, limits=Limits(total_bytes=1000, download_bps=8000))
    item = voucher(batch, first_used_unix=UNIX, used_s=5, upload_bytes=6, download_bytes=7)
    grant = grant_of(item, UNIX + 10)
    assert grant.account == grant.username == "voucher-3-17"
    assert grant.devices == 2
    assert grant.used == UsedBefore(5, Counters(upload_bytes=6, download_bytes=7))
    assert grant.limits == Limits(session_time_s=0, total_bytes=1000, download_bps=8000, terminate_unix=UNIX + 3600)


def test_without_a_clock_the_session_is_no_longer_than_the_validity() -> None:
    """A box that never learned the time still ends what it gave out."""
    batch = replace(BATCH, validity_s=3600)
    assert grant_of(voucher(batch), None).limits.session_time_s == 3600
    short = replace(batch, limits=Limits(session_time_s=60))
    assert grant_of(voucher(short), None).limits.session_time_s == 60


@pytest.mark.parametrize(
    ("values", "count", "said"),
    [
        ({}, 0, "1 to 10000"),
        ({}, 10_001, "1 to 10000"),
        ({"length": 7}, 1, "8 to 20"),
        ({"length": 21}, 1, "8 to 20"),
        ({"alphabet": "letters", "length": 5}, 1, "6 to 20"),
        ({"alphabet": "runes"}, 1, "digits or letters"),
        ({"devices": 0}, 1, "devices"),
        ({"validity_s": 59}, 1, "at least a minute"),
        ({"expires_unix": UNIX - 200}, 1, "time to come"),
        ({"expires_unix": float("nan")}, 1, "time to come"),
        ({"limits": Limits(total_bytes=0)}, 1, "total_bytes"),
        ({"note": "x" * 1001}, 1, "1000"),
        ({"note": "\ud800"}, 1, "surrogate"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_in_words(values: dict[str, object], count: int, said: str) -> None:
    """The sentence says what would be accepted."""
    with pytest.raises(AccountError, match=said):
        check_batch(replace(BATCH, **values), count)  # type: ignore[arg-type]  # tests name fields of Batch
