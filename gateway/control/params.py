"""Reading the parameters of a control method: each function returns a checked value or raises `bad_params`.

The message names the parameter, the value and what would be accepted, because an operator reads it in a terminal.
A parameter that is absent or null has its default; without a default it is required.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeVar

from gateway.addresses import MacAddress
from gateway.control.protocol import BAD_PARAMS, ControlError, JsonValue, Params

T = TypeVar("T")
MAX_TEXT: Final = 1024  # characters; what is longer says so at the call
# Values that no message repeats.
_SECRET: Final = frozenset(
    {"password", "current", "passphrase", "secret", "response", "challenge", "code", "totp", "credential", "token"}
)


class _Required:
    """Type of the marker that a parameter has no default."""


REQUIRED: Final = _Required()


def text(params: Params, name: str, default: T | _Required = REQUIRED, *, longest: int = MAX_TEXT) -> str | T:
    """A string of at most `longest` characters, without NUL."""
    value = params.get(name)
    if value is None:
        return _default(name, default, "a string")
    if not isinstance(value, str):
        raise _bad(name, value, "a string")
    if len(value) > longest:
        raise ControlError(BAD_PARAMS, f"{name} has {len(value)} characters; at most {longest} are accepted")
    if "\0" in value:
        raise ControlError(BAD_PARAMS, f"{name} holds a NUL character; no text of ours has one")
    return value


def integer(
    params: Params, name: str, default: T | _Required = REQUIRED, *, low: int = 0, high: int = (1 << 63) - 1
) -> int | T:
    """A whole number from `low` to `high`."""
    value = params.get(name)
    wanted = f"a whole number from {low} to {high}"
    if value is None:
        return _default(name, default, wanted)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(name, value, wanted)
    return value


def number(
    params: Params, name: str, default: T | _Required = REQUIRED, *, low: float = 0.0, high: float = 1e15
) -> float | T:
    """A number from `low` to `high`, with or without fraction."""
    value = params.get(name)
    wanted = f"a number from {low:g} to {high:g}"
    if value is None:
        return _default(name, default, wanted)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad(name, value, wanted)
    return float(value)


def flag(params: Params, name: str, default: bool = False) -> bool:
    """True or false."""
    value = params.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def choice(params: Params, name: str, choices: Collection[str], default: T | _Required = REQUIRED) -> str | T:
    """One of a few fixed words."""
    value = params.get(name)
    wanted = "one of " + ", ".join(choices)
    if value is None:
        return _default(name, default, wanted)
    if not isinstance(value, str) or value not in choices:
        raise _bad(name, value, wanted)
    return value


def mac(params: Params, name: str, default: T | _Required = REQUIRED) -> MacAddress | T:
    """A hardware address in any usual spelling."""
    value = params.get(name)
    wanted = "a MAC address such as 02:00:5e:10:00:2a"
    if value is None:
        return _default(name, default, wanted)
    if not isinstance(value, str):
        raise _bad(name, value, wanted)
    try:
        return MacAddress.parse(value)
    except ValueError:
        raise _bad(name, value, wanted) from None


def address(params: Params, name: str, default: T | _Required = REQUIRED) -> IPv4Address | IPv6Address | T:
    """An IP address; one with a scope (`fe80::1%eth0`) is refused, for it means nothing to another process."""
    value = params.get(name)
    wanted = "an IP address such as 10.41.0.20"
    if value is None:
        return _default(name, default, wanted)
    if not isinstance(value, str) or "%" in value:
        raise _bad(name, value, wanted)
    try:
        return ip_address(value)
    except ValueError:
        raise _bad(name, value, wanted) from None


def ipv4(params: Params, name: str, default: T | _Required = REQUIRED) -> IPv4Address | T:
    """An IPv4 address."""
    value = params.get(name)
    wanted = "an IPv4 address such as 10.41.0.20"
    if value is None:
        return _default(name, default, wanted)
    try:
        return _read_ipv4(value if isinstance(value, str) else "")
    except ValueError:
        raise _bad(name, value, wanted) from None


# The portal names the same client several times within a login.
_read_ipv4: Final = lru_cache(256)(IPv4Address)


def only(params: Params, *names: str) -> None:
    """Refuse parameters of other names: a misspelt limit must not become no limit."""
    for name in params:
        if name not in names:
            accepted = ", ".join(names) or "none"
            raise ControlError(BAD_PARAMS, f"there is no parameter {name[:64]!r} here; accepted: {accepted}")


def _default(name: str, default: T | _Required, wanted: str) -> T:
    if isinstance(default, _Required):
        raise ControlError(BAD_PARAMS, f"{name} is missing; it must be {wanted}")
    return default


def _bad(name: str, value: JsonValue, wanted: str) -> ControlError:
    if name in _SECRET:
        return ControlError(BAD_PARAMS, f"{name} must be {wanted}")
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:79] + "…"
    return ControlError(BAD_PARAMS, f"{name} is {shown}; it must be {wanted}")
