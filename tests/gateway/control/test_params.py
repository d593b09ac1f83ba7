"""Parameters: checked values out, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from gateway.addresses import MacAddress
from gateway.control import params
from gateway.control.protocol import BAD_PARAMS, ControlError, JsonValue, Params

Reader = Callable[[Params], object]


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (lambda given: params.text(given, "p"), "abc", "abc"),
        (lambda given: params.integer(given, "p", low=1, high=9), 9, 9),
        (lambda given: params.number(given, "p"), 2, 2.0),
        (lambda given: params.flag(given, "p"), True, True),
        (lambda given: params.choice(given, "p", ("a", "b")), "b", "b"),
        (lambda given: params.mac(given, "p"), "02-00-5E-10-00-2A", MacAddress.parse("02:00:5e:10:00:2a")),
        (lambda given: params.address(given, "p"), "2001:db8::1", IPv6Address("2001:db8::1")),
        (lambda given: params.ipv4(given, "p"), "10.41.0.1", IPv4Address("10.41.0.1")),
    ],
)
def test_good_values_are_converted(reader: Reader, value: JsonValue, expected: object) -> None:
    """A value of the right shape is returned as its own type."""
    assert reader({"p": value}) == expected


@pytest.mark.parametrize(
    ("reader", "values"),
    [
        (lambda given: params.text(given, "p", longest=4), [5, "12345", "a\0b", True, ["a"]]),
        (lambda given: params.integer(given, "p", low=1, high=9), [0, 10, "5", 1.0, True, {}]),
        (lambda given: params.number(given, "p", high=9), [-0.1, 9.5, "5", False]),
        (lambda given: params.flag(given, "p"), [0, 1, "yes"]),
        (lambda given: params.choice(given, "p", ("a", "b")), ["c", 1, ["a"], {}]),
        (lambda given: params.mac(given, "p"), ["02:00", 5, "zz:00:5e:10:00:2a"]),
        (lambda given: params.address(given, "p"), ["300.1.1.1", 167_837_697, "fe80::1%eth0", "10.0.0.1/8"]),
        (lambda given: params.ipv4(given, "p"), ["2001:db8::1", 167_837_697, []]),
    ],
)
def test_bad_values_are_named(reader: Reader, values: list[JsonValue]) -> None:
    """A value of another shape or range is refused with the parameter's name and what is accepted."""
    for value in values:
        with pytest.raises(ControlError, match=r"^p ") as refusal:
            reader({"p": value})
        assert refusal.value.code == BAD_PARAMS


def test_defaults_are_for_what_is_absent_or_null() -> None:
    """Absent and null mean the default; without one the parameter is required."""
    empty: tuple[Params, ...] = ({}, {"p": None})
    for given in empty:
        assert params.text(given, "p", "d") == "d"
        assert params.integer(given, "p", None) is None
        assert params.flag(given, "p") is False
        for reader in (params.text, params.integer, params.number, params.mac, params.address, params.ipv4):
            with pytest.raises(ControlError, match="p is missing"):
                reader(given, "p")


def test_values_that_are_secret_are_never_repeated() -> None:
    """The refusal of a password does not show it: errors end in logs and on screens."""
    with pytest.raises(ControlError) as refusal:
        params.text({"password": 123456789}, "password")
    assert "123456789" not in refusal.value.message


def test_a_long_value_is_cut_in_the_message() -> None:
    """A megabyte of nonsense makes a sentence, not a megabyte of error."""
    with pytest.raises(ControlError) as refusal:
        params.integer({"p": "x" * 100_000}, "p")
    assert len(refusal.value.message) < 200


def test_unknown_names_are_refused() -> None:
    """A misspelt limit must not become no limit."""
    params.only({"minutes": 5}, "minutes", "client")
    with pytest.raises(ControlError, match=r"'minuets'.*accepted: minutes, client"):
        params.only({"minuets": 5}, "minutes", "client")
