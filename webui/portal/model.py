"""What the portal knows, as the daemon tells it over the control socket: configuration, clients, login results.

Strings and JSON stop here. A value of the wrong type means that daemon and portal are of different versions; it raises
`ContractError` with the name of the value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from gateway.addresses import MacAddress
from gateway.values import value_class

T = TypeVar("T")


class ContractError(Exception):
    """The daemon said something that this portal does not understand."""


class LoginMethod(Enum):
    """Forms that a zone can offer."""

    CLICK = "click"
    PASSWORD = "password"
    VOUCHER = "voucher"


class Outcome(Enum):
    """How a login ended: the daemon's results, then those that the portal finds out by itself."""

    SUCCESS = "success"
    ALREADY = "already"
    REJECT = "reject"
    TIMEOUT = "timeout"
    LIMIT = "limit"
    BUSY = "busy"
    NO_LEASE = "no_lease"
    FORBIDDEN = "forbidden"
    ERROR = "error"
    THROTTLED = "throttled"  # too many wrong passwords; `wait_s` says how long
    UNAVAILABLE = "unavailable"  # the daemon is restarting


ONLINE_OUTCOMES = frozenset((Outcome.SUCCESS, Outcome.ALREADY))


@value_class
class Uam:
    """Bounds of the portal; meanings and defaults are in the configuration's section `uam`."""

    rate_limit_enabled: bool = True
    rate_limit: float = 100.0
    rate_limit_burst: int = 200
    rate_limit_cleanup_interval: int = 600
    read_timeout: int = 10
    write_timeout: int = 10
    idle_timeout: int = 120
    login_timeout: int = 20
    login_attempts: int = 5
    login_backoff: int = 10
    max_connections: int = 2048
    max_connections_per_client: int = 32


@value_class
class Zone:
    """One guest network as its guests see it."""

    name: str
    address: IPv4Address
    network: IPv4Network
    port: int
    methods: tuple[LoginMethod, ...]
    title: str = "Welcome"
    terms: str = ""
    ssid: str = ""
    redirect_url: str = ""
    language: str = ""  # empty: by Accept-Language
    remember: int = 0  # hours for which a device comes back without the page
    theme: str = ""  # empty: ours
    theme_version: str = ""  # another whenever the theme's files change
    # The operator's own sentences: language, key, text.
    texts: tuple[tuple[str, str, str], ...] = ()

    @property
    def origin(self) -> str:
        """The portal's address in this zone, without a slash at the end."""
        return f"http://{self.address}:{self.port}"


@value_class
class PortalConfig:
    """Everything that the portal is configured with."""

    portal_name: str
    status_name: str
    uam: Uam
    csrf_secret: bytes
    zones: tuple[Zone, ...]


class SessionState(Enum):
    """Where a client stands."""

    HELD = "held"
    AUTHENTICATING = "authenticating"
    OPENING = "opening"
    ONLINE = "online"
    CLOSING = "closing"


@value_class
class Client:
    """One client and its session. Upload is what the client sent."""

    zone: str
    mac: MacAddress
    ip: str
    state: SessionState
    username: str = ""
    session_id: str = ""
    online_since_s: float = 0.0  # the daemon's monotonic clock, which is the machine's
    session_start_unix: float | None = None
    seconds_left: int | None = None
    upload_bytes: int = 0
    download_bytes: int = 0
    bytes_left: int | None = None
    reply_message: str = ""
    redirection_url: str = ""
    upload_bps: int | None = None  # what the session may do at most
    download_bps: int | None = None
    method: str = ""


@value_class
class LoginReply:
    """The answer to a login. `message` is the server's own text, to be escaped where it is shown; `reason` a fixed word
    where the daemon knows one."""

    outcome: Outcome
    message: str = ""
    redirection_url: str = ""
    wait_s: int = 0
    reason: str = ""


def read_config(value: object) -> PortalConfig:
    """The answer of `portal.config`; raises ContractError."""
    tree = _mapping(value, "portal.config")
    uam = _mapping(_get(tree, "uam", dict), "uam")
    defaults = Uam()
    try:
        secret = bytes.fromhex(_get(tree, "csrf_secret", str))
    except ValueError:
        raise ContractError("csrf_secret is not hexadecimal") from None
    if len(secret) < 16:
        raise ContractError("csrf_secret has less than 16 octets")
    return PortalConfig(
        portal_name=_get(tree, "portal_name", str).lower(),
        status_name=_get(tree, "status_name", str).lower(),
        uam=Uam(
            **{
                item.name: _number(uam, item.name, type(getattr(defaults, item.name)), getattr(defaults, item.name))
                for item in fields(Uam)
            }
        ),
        csrf_secret=secret,
        zones=tuple(_read_zone(_mapping(zone, "zones")) for zone in _get(tree, "zones", list)),
    )


def _read_zone(tree: Mapping[str, object]) -> Zone:
    try:
        address = IPv4Address(_get(tree, "address", str))
        network = IPv4Network((int(address), _get(tree, "prefix", int)), strict=False)
        methods = tuple(LoginMethod(method) for method in _get(tree, "methods", list))
    except ValueError as err:
        raise ContractError(f"zone {tree.get('name')!r}: {err}") from None
    return Zone(
        name=_get(tree, "name", str),
        address=address,
        network=network,
        port=_get(tree, "port", int),
        methods=methods,
        title=_get(tree, "title", str, "Welcome"),
        terms=_get(tree, "terms", str, ""),
        ssid=_get(tree, "ssid", str, ""),
        redirect_url=_get(tree, "redirect_url", str, ""),
        language=_get(tree, "language", str, ""),
        remember=_number(tree, "remember", int, 0),
        theme=_get(tree, "theme", str, ""),
        theme_version=_get(tree, "theme_version", str, ""),
        texts=tuple(_read_texts(tree.get("texts") or {})),
    )


def _read_texts(value: object) -> Iterator[tuple[str, str, str]]:
    """`{language: {key: text}}` in a fixed order."""
    for language, texts in sorted(_mapping(value, "texts").items()):
        for key in sorted(_mapping(texts, "texts")):
            yield language, key, _get(_mapping(texts, "texts"), key, str)


def read_theme(value: object) -> dict[str, bytes]:
    """The answer of `portal.theme`: files by name; raises ContractError."""
    files = _mapping(_mapping(value, "portal.theme").get("files"), "files")
    try:
        return {name: base64.b64decode(_get(files, name, str), validate=True) for name in files}
    except binascii.Error:
        raise ContractError("a file of portal.theme is not base64") from None


def read_client(value: object) -> Client:
    """The answer of `client.lookup`; raises ContractError."""
    tree = _mapping(value, "client.lookup")
    try:
        state = SessionState(_get(tree, "state", str))
        mac = MacAddress.parse(_get(tree, "mac", str))
    except ValueError as err:
        raise ContractError(f"client.lookup: {err}") from None
    zone, ip = _get(tree, "zone", str), _get(tree, "ip", str)
    if "session_id" not in tree:
        return Client(zone, mac, ip, state)
    start = tree.get("session_start_unix")
    return Client(
        zone=zone,
        mac=mac,
        ip=ip,
        state=state,
        username=_get(tree, "username", str, ""),
        session_id=_get(tree, "session_id", str, ""),
        online_since_s=_number(tree, "online_since_s", float, 0.0),
        session_start_unix=float(start) if isinstance(start, int | float) else None,
        seconds_left=_optional_whole(tree, "seconds_left"),
        upload_bytes=_number(tree, "upload_bytes", int, 0),
        download_bytes=_number(tree, "download_bytes", int, 0),
        bytes_left=_optional_whole(tree, "bytes_left"),
        reply_message=_get(tree, "reply_message", str, ""),
        redirection_url=_get(tree, "redirection_url", str, ""),
        upload_bps=_optional_whole(tree, "upload_bps"),
        download_bps=_optional_whole(tree, "download_bps"),
        method=_get(tree, "method", str, ""),
    )


def read_login_reply(value: object) -> LoginReply:
    """The answer of `client.login`; raises ContractError."""
    tree = _mapping(value, "client.login")
    try:
        outcome = Outcome(_get(tree, "result", str))
    except ValueError as err:
        raise ContractError(f"client.login: {err}") from None
    return LoginReply(
        outcome,
        _get(tree, "message", str, ""),
        _get(tree, "redirection_url", str, ""),
        _number(tree, "wait_s", int, 0),
        _get(tree, "reason", str, ""),
    )


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ContractError(f"{name} is not an object")
    return value


def _get(tree: Mapping[str, object], name: str, kind: type[T], default: T | None = None) -> T:
    value = tree.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ContractError(f"{name} is {value!r}, not of type {kind.__name__}")
    return value


def _number(tree: Mapping[str, object], name: str, kind: type[T], default: T) -> T:
    value = tree.get(name)
    if value is None:
        return default
    if kind is bool and isinstance(value, bool):
        return value  # type: ignore[return-value]  # T is bool here
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ContractError(f"{name} is {value!r}, not a number")
    return kind(value)  # type: ignore[call-arg]  # int or float


def _optional_whole(tree: Mapping[str, object], name: str) -> int | None:
    value = tree.get(name)
    if value is None:
        return None
    return max(0, _number(tree, name, int, 0))
