"""What attributes of an Access-Accept or CoA-Request mean, vendor by vendor."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.radius.attributes import (
    Decision,
    Moment,
    Reading,
    UnacceptableValue,
    read_change,
    read_decision,
    read_grant,
)
from gateway.radius.packets import (
    Code,
    DecodeError,
    Packet,
    attribute,
    decode,
    encode_request,
    integer_attribute,
    vendor_attribute,
)
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import Limits
from tests.gateway.radius.build import KEY, UNIX, login

ASCEND, PFSENSE, WISPR, CHILLISPOT, MIKROTIK = 529, 13644, 14122, 14559, 14988
CEST = timezone(timedelta(hours=2))


def packet(*parts: bytes, code: Code = Code.ACCESS_ACCEPT) -> Packet:
    return decode(encode_request(code, 1, b"x", b"".join(parts))[0])


def vsa(vendor: int, number: int, value: int | str) -> bytes:
    return vendor_attribute(vendor, number, value.to_bytes(4, "big") if isinstance(value, int) else value.encode())


def grant(*parts: bytes, client_view: bool = False) -> Reading:
    return read_grant(packet(*parts), "alice", client_view=client_view, moment=Moment(UNIX, CEST))


def limits(*parts: bytes, client_view: bool = False) -> Limits:
    return grant(*parts, client_view=client_view).grant.limits


def test_an_empty_accept_grants_without_limits() -> None:
    """Nothing said is nothing limited, under the name that was typed."""
    read = grant().grant
    assert read.limits == Limits()
    assert read.username == "alice"
    assert read.interim_interval_s is None


def test_of_class_is_kept_what_every_accounting_packet_has_room_for() -> None:
    """A server may send more of it than fits beside the rest of a record; the first are echoed, and the log says so."""
    values = [bytes((number,)) * 250 for number in range(1, 17)]
    reading = grant(*(attribute(25, value) for value in values))
    assert reading.grant.class_values == tuple(values[:9])
    assert reading.notes == ("only 9 of 16 Class attributes fit into accounting packets",)


def test_times_names_and_echoed_values() -> None:
    """Times, Class, the identity to echo, the name for accounting, policies, and the number of devices are taken."""
    read = grant(
        integer_attribute(27, 3600),
        integer_attribute(28, 300),
        integer_attribute(29, 1),
        attribute(25, b"one"),
        attribute(25, b"two"),
        attribute(89, b"cui"),
        attribute(1, b"alice@example"),
        attribute(11, b"gold"),
        vsa(MIKROTIK, 3, "hotspot"),
        integer_attribute(62, 3),
    ).grant
    assert (read.limits.session_time_s, read.limits.idle_time_s) == (3600, 300)
    assert read.class_values == (b"one", b"two")
    assert read.chargeable_user_identity == b"cui"
    assert read.username == "alice@example"
    assert read.filter_ids == ("gold", "hotspot")
    assert read.reauthenticate_at_end
    assert read.devices == 3


@pytest.mark.parametrize(("sent", "read"), [(0, 0), (1, 60), (59, 60), (60, 60), (900, 900)])
def test_interim_interval_is_at_least_a_minute(sent: int, read: int) -> None:
    """Intervals below 60 s are raised (RFC 2869 §5.16), 0 switches interim records off."""
    assert grant(integer_attribute(85, sent)).grant.interim_interval_s == read


def test_a_limit_of_zero_says_that_there_is_none() -> None:
    """Zero overrides the zone's default with no limit at all; octet quotas without a default are simply absent."""
    read = limits(integer_attribute(27, 0), integer_attribute(28, 0), vsa(CHILLISPOT, 3, 0), vsa(CHILLISPOT, 1, 0))
    assert read == Limits(session_time_s=0, idle_time_s=0, total_bytes=0)


RATES = {
    "mikrotik": (vsa(MIKROTIK, 8, "1M/2M"), (1_000_000, 2_000_000)),
    "chillispot": (vsa(CHILLISPOT, 4, 512) + vsa(CHILLISPOT, 5, 1024), (512_000, 1_024_000)),
    "pfsense": (vsa(PFSENSE, 1, 300_000) + vsa(PFSENSE, 2, 400_000), (300_000, 400_000)),
    "ascend": (vsa(ASCEND, 197, 250_000) + vsa(ASCEND, 255, 260_000), (250_000, 260_000)),
    "wispr": (vsa(WISPR, 7, 100_000) + vsa(WISPR, 8, 200_000), (100_000, 200_000)),
}


@pytest.mark.parametrize("first", range(len(RATES)))
def test_the_first_source_of_a_rate_wins(first: int) -> None:
    """MikroTik, ChilliSpot, pfSense, Ascend, WISPr: the earlier one wins, in whatever order they were sent."""
    present = list(RATES.values())[first:]
    read = limits(*(encoded for encoded, _ in reversed(present)))
    assert (read.upload_bps, read.download_bps) == present[0][1]


def test_each_direction_has_its_own_source() -> None:
    """A source that names one direction leaves the other to the next source."""
    read = limits(vsa(CHILLISPOT, 5, 64), vsa(WISPR, 7, 9000), vsa(WISPR, 8, 9001))
    assert (read.upload_bps, read.download_bps) == (9000, 64_000)


def test_which_rate_won_is_said_where_they_differ() -> None:
    """For the log: which attribute counts, and which did not. Equal ones and single ones need no word."""
    reading = grant(vsa(CHILLISPOT, 4, 512), vsa(WISPR, 7, 2_000_000))
    assert reading.grant.limits.upload_bps == 512_000
    assert reading.notes == (
        "upload rate by ChilliSpot-Bandwidth-Max-Up (512,000 bit/s), not by WISPr-Bandwidth-Max-Up (2,000,000 bit/s)",
    )
    assert grant(vsa(CHILLISPOT, 4, 512), vsa(WISPR, 7, 512_000)).notes == ()
    assert grant(vsa(WISPR, 7, 2_000_000)).notes == ()
    assert grant(RATES["ascend"][0]).notes == ()


def test_ascend_data_rate_alone_holds_for_both_directions() -> None:
    """Without Ascend-Xmit-Rate the data rate is that of both directions."""
    read = limits(vsa(ASCEND, 197, 250_000))
    assert (read.upload_bps, read.download_bps) == (250_000, 250_000)


@pytest.mark.parametrize(
    ("text", "upload", "download"),
    [
        ("64k/128M", 64_000, 128_000_000),
        ("2M", 2_000_000, 2_000_000),
        ("1G/0", 1_000_000_000, 0),
        ("512k/1M 1M/2M 256k/512k 10/20 8 64k/64k", 512_000, 1_000_000),
    ],
)
def test_mikrotik_rate_texts(text: str, upload: int, download: int) -> None:
    """The first word is the rate, from the client first; bursts, thresholds, times and priority follow."""
    read = limits(vsa(MIKROTIK, 8, text))
    assert (read.upload_bps, read.download_bps) == (upload, download)


@pytest.mark.parametrize("text", ["", "fast", "1M/2M/3M", "1M 2x", "-1", "1m", "1M 1M 1M 1 8/8", "1 1 1 1 1 1 1"])
def test_malformed_mikrotik_texts_leave_it_to_the_next_source(text: str) -> None:
    """A malformed text is noted and the next source used; it never means unlimited."""
    encoded = [vsa(MIKROTIK, 8, text or " "), vsa(WISPR, 7, 9000)]
    reading = grant(*encoded)
    assert reading.grant.limits.upload_bps == 9000
    assert "Mikrotik-Rate-Limit" in reading.notes[0]


def test_quotas_are_the_smallest_of_those_present() -> None:
    """Low and high words make one number; of several vendors the smallest quota applies."""
    read = limits(
        vsa(CHILLISPOT, 1, 5), vsa(CHILLISPOT, 21, 1), vsa(MIKROTIK, 1, 7), vsa(MIKROTIK, 14, 1), vsa(PFSENSE, 3, 99),
        vsa(CHILLISPOT, 23, 1), vsa(CHILLISPOT, 2, 44),
    )  # fmt: skip
    assert (read.upload_bytes, read.download_bytes, read.total_bytes) == ((1 << 32) + 5, 44, 99)


def test_the_clients_view_turns_input_and_output_quotas_only() -> None:
    """ChilliSpot's Input is the client's download in its view; MikroTik's recv is always from the client."""
    read = limits(vsa(CHILLISPOT, 1, 11), vsa(CHILLISPOT, 2, 22), vsa(MIKROTIK, 1, 1000), client_view=True)
    assert (read.upload_bytes, read.download_bytes) == (22, 11)


@pytest.mark.parametrize(
    ("text", "offset_h"),
    [
        ("2026-11-30T22:00:00Z", 0),
        ("2026-11-30T22:00:00+02:00", 2),
        ("2026-11-30T22:00:00+0200", 2),
        ("2026-11-30T22:00:00-05:00", -5),
        ("2026-11-30T22:00:00", 2),  # local, which is two hours ahead in this test
    ],
)
def test_terminate_times_with_every_kind_of_zone(text: str, offset_h: int) -> None:
    """A time ends with Z, an offset with or without colon, or nothing, which is local time."""
    wanted = datetime(2026, 11, 30, 22, tzinfo=timezone(timedelta(hours=offset_h))).timestamp()
    assert limits(vsa(WISPR, 9, text)).terminate_unix == wanted


def test_the_earliest_end_applies() -> None:
    """End of day is local midnight, and the earlier of two ends holds."""
    midnight = datetime.fromtimestamp(UNIX, CEST).replace(hour=0, minute=0, second=0) + timedelta(days=1)
    assert limits(vsa(WISPR, 10, "yes"), vsa(WISPR, 9, "2030-01-01T00:00:00Z")).terminate_unix == midnight.timestamp()
    assert limits(vsa(WISPR, 10, "no")).terminate_unix is None


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-31T00:00:00Z", "2026-11-30", "9999-99-99T00:00:00Z"])
def test_malformed_ends_are_noted(text: str) -> None:
    """An end that is no time is ignored and noted."""
    reading = grant(vsa(WISPR, 9, text))
    assert reading.grant.limits.terminate_unix is None
    assert text in reading.notes[0]


def test_a_redirection_url_may_span_attributes() -> None:
    """Parts of a URL are joined; what is no web address is not followed."""
    assert grant(vsa(WISPR, 4, "https://example.com/a"), vsa(WISPR, 4, "/b")).grant.redirection_url == (
        "https://example.com/a/b"
    )
    reading = grant(vsa(WISPR, 4, "javascript:alert(1)"))
    assert reading.grant.redirection_url == ""
    assert reading.notes


def test_reply_messages_are_joined() -> None:
    """Messages are lines, but one that fills its attribute goes on in the next."""
    read = grant(attribute(18, b"x" * 253), attribute(18, b"y"), attribute(18, b"<b>z</b>")).grant
    assert read.reply_message == "x" * 253 + "y\n<b>z</b>"


def test_known_attributes_of_the_wrong_length_let_nobody_in() -> None:
    """An accept with a value that cannot be read is no accept, even where another source would win."""
    for bad in (attribute(27, b"\0\0\1"), attribute(85, b"\0"), vendor_attribute(WISPR, 7, b"\0\0\1")):
        with pytest.raises(DecodeError):
            grant(vsa(MIKROTIK, 8, "1M"), bad)
        decision = decide(packet(bad))
        assert isinstance(decision.event, AccessFailed)
        assert "one (192.0.2.1:1812) sent an answer that cannot be followed" in decision.event.reason


def decide(answer: Packet) -> Decision:
    return read_decision(answer, login(5), "one (192.0.2.1:1812)", client_view=False, moment=Moment(UNIX))


def test_answers_become_events() -> None:
    """Accept, reject and challenge are what the session core hears; a challenge is a reject with its message."""
    accepted = decide(packet(integer_attribute(6, 1))).event
    assert isinstance(accepted, AccessAccepted)
    assert (accepted.key, accepted.login_id) == (KEY, 5)
    for code in (Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE):
        rejected = decide(packet(attribute(18, b"No."), code=code)).event
        assert rejected == AccessRejected(KEY, 5, "No.")


@pytest.mark.parametrize(("service", "granted"), [(1, True), (2, True), (10, True), (6, False), (17, False)])
def test_a_service_that_is_not_given_is_a_reject(service: int, granted: bool) -> None:
    """An accept with another Service-Type than Login, Framed or Call-Check counts as a reject (RFC 2865 §5.6)."""
    assert isinstance(decide(packet(integer_attribute(6, service))).event, AccessAccepted) is granted


def change_of(*parts: bytes) -> object:
    return read_change(packet(*parts, code=Code.COA_REQUEST), client_view=False, moment=Moment(UNIX))


def test_a_change_names_only_what_is_present() -> None:
    """What a CoA-Request does not mention stays as it is; zero lifts a limit."""
    change = read_change(
        packet(
            integer_attribute(27, 600), vsa(WISPR, 8, 0), attribute(11, b"gold"), integer_attribute(85, 5),
            vsa(WISPR, 4, "http://example.com/"), code=Code.COA_REQUEST,
        ),
        client_view=False,
        moment=Moment(UNIX),
    )  # fmt: skip
    assert change.changed == {"session_time_s", "download_bps"}
    assert change.limits == Limits(session_time_s=600, download_bps=0)
    assert change.filter_ids == ("gold",)
    assert change.interim_interval_s == 60
    assert change.redirection_url == "http://example.com/"
    assert not change.log_off


def test_session_state_logs_off() -> None:
    """ChilliSpot-Session-State 2 ends the session, 1 leaves it, anything else is refused."""
    for state, log_off in ((1, False), (2, True)):
        read = read_change(
            packet(vsa(CHILLISPOT, 15, state), code=Code.COA_REQUEST), client_view=False, moment=Moment(UNIX)
        )
        assert read.log_off is log_off
    with pytest.raises(UnacceptableValue):
        change_of(vsa(CHILLISPOT, 15, 3))


@pytest.mark.parametrize("bad", [vsa(MIKROTIK, 8, "fast"), vsa(WISPR, 9, "soon"), vsa(WISPR, 4, "ftp://x")])
def test_a_change_with_a_meaningless_value_is_refused_as_a_whole(bad: bytes) -> None:
    """What an accept would only note refuses a CoA-Request, for nothing of it may then happen."""
    with pytest.raises(UnacceptableValue):
        change_of(integer_attribute(27, 600), bad)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ASCEND, PFSENSE, WISPR, CHILLISPOT, MIKROTIK]), st.integers(1, 255), st.binary(max_size=30)), max_size=8), st.booleans())  # fmt: skip  # noqa: E501
def test_any_vendor_values_raise_nothing_but_decode_errors(parts: list[tuple[int, int, bytes]], view: bool) -> None:
    """No values of the vendors that we honour make the reader raise anything else."""
    encoded = [vendor_attribute(vendor, number, value) for vendor, number, value in parts]
    try:
        grant(*encoded, client_view=view)
        change_of(*encoded)
    except (DecodeError, UnacceptableValue):
        pass
