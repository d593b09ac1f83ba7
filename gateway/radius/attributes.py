"""What a RADIUS server grants or changes: attributes of an Access-Accept or CoA-Request read as Grant and GrantChange.

Pure. Several vendors say the same thing in different attributes: per direction the first rate present wins (MikroTik,
ChilliSpot, pfSense, Ascend, WISPr), of quotas and ends the smallest. A limit of 0 says that there is none, whatever the
zone's default is. Input and Output are seen from the access server (RFC 2866 §5.3) or, by option `accounting_view`,
from the client; Up, Down, recv and xmit are never turned. Unknown attributes are ignored (RFC 2865 §5); a known one of
the wrong length makes the packet invalid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from gateway.radius.packets import Code, DecodeError, Packet
from gateway.session.actions import SendAccessRequest
from gateway.session.events import AccessAccepted, AccessFailed, AccessRejected
from gateway.session.model import AuthenticatedBy, Grant, GrantChange, Limits
from gateway.values import value_class

MINIMUM_INTERIM_S: Final = 60  # RFC 2869 §5.16
_SERVICES_GRANTED: Final = frozenset({1, 2, 10})  # Login, Framed, Call-Check
MAX_CLASS_OCTETS: Final = 2500  # in every accounting packet, which has 4096 and up to 1560 without them
_MAX_URL: Final = 2048
_FULL_TEXT: Final = 253  # octets of an attribute that continues in the next one

_RATE: Final = re.compile(r"(\d{1,12})([kMG]?)")
_SCALE: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_TERMINATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)?")

# Quotas: attribute with the low word, attribute with the high word.
_RECV: Final = ("Mikrotik-Recv-Limit", "Mikrotik-Recv-Limit-Gigawords")
_XMIT: Final = ("Mikrotik-Xmit-Limit", "Mikrotik-Xmit-Limit-Gigawords")
_INPUT: Final = ("ChilliSpot-Max-Input-Octets", "ChilliSpot-Max-Input-Gigawords")
_OUTPUT: Final = ("ChilliSpot-Max-Output-Octets", "ChilliSpot-Max-Output-Gigawords")
_TOTALS: Final = (
    ("Mikrotik-Total-Limit", "Mikrotik-Total-Limit-Gigawords"),
    ("ChilliSpot-Max-Total-Octets", "ChilliSpot-Max-Total-Gigawords"),
    ("pfSense-Max-Total-Octets", ""),
)

# Rates after MikroTik's text: name for the log, attribute per direction, bit/s per unit.
_UPLOAD_RATES: Final = (
    ("ChilliSpot-Bandwidth-Max-Up", 1000),
    ("pfSense-Bandwidth-Max-Up", 1),
    ("Ascend-Data-Rate", 1),
    ("WISPr-Bandwidth-Max-Up", 1),
)
_DOWNLOAD_RATES: Final = (
    ("ChilliSpot-Bandwidth-Max-Down", 1000),
    ("pfSense-Bandwidth-Max-Down", 1),
    ("Ascend-Xmit-Rate", 1),
    ("Ascend-Data-Rate", 1),  # alone it holds for both directions
    ("WISPr-Bandwidth-Max-Down", 1),
)

# What a CoA-Request may carry (RFC 5176 §3): what we change, what only finds or describes the session.
_RATE_ATTRIBUTES: Final = ("Mikrotik-Rate-Limit", *(name for name, _ in _UPLOAD_RATES + _DOWNLOAD_RATES))
_QUOTA_ATTRIBUTES: Final = tuple(name for pair in (_RECV, _XMIT, _INPUT, _OUTPUT, *_TOTALS) for name in pair if name)
CHANGEABLE: Final = frozenset(
    {
        "Session-Timeout",
        "Idle-Timeout",
        "Acct-Interim-Interval",
        "Filter-Id",
        "WISPr-Redirection-URL",
        "WISPr-Session-Terminate-Time",
        "WISPr-Session-Terminate-End-Of-Day",
        "ChilliSpot-Session-State",
        *_RATE_ATTRIBUTES,
        *_QUOTA_ATTRIBUTES,
    }
)


class UnacceptableValue(Exception):
    """A CoA-Request asks for a value that has no meaning; the text names the attribute."""


@value_class
class Moment:
    """The wall clock when a packet came: unix time (None while never set), and the local zone (None: the system's)."""

    unix: float | None
    zone: tzinfo | None = None


@value_class
class Reading:
    """A grant, with sentences for the log about what could not be read."""

    grant: Grant
    notes: tuple[str, ...]


@value_class
class Decision:
    """What an answer to a login means for the session, with sentences for the log."""

    event: AccessAccepted | AccessRejected | AccessFailed
    notes: tuple[str, ...] = ()


def read_decision(
    answer: Packet, action: SendAccessRequest, place: str, *, client_view: bool, moment: Moment
) -> Decision:
    """Read a verified answer to a login; `place` names the server for people.

    A challenge counts as a reject: the forms of the portal have no second step. An Access-Accept that is not well
    formed lets nobody in.
    """
    key, login_id = action.key, action.login_id
    try:
        if answer.code != Code.ACCESS_ACCEPT:
            return Decision(AccessRejected(key, login_id, reply_message(answer)))
        if service_refused(answer):
            note = f"{place} accepted with a Service-Type that is not given here; counted as a reject"
            return Decision(AccessRejected(key, login_id, reply_message(answer)), (note,))
        reading = read_grant(answer, action.credentials.username, client_view=client_view, moment=moment)
    except DecodeError as err:
        return Decision(AccessFailed(key, login_id, f"{place} sent an answer that cannot be followed: {err}"))
    return Decision(AccessAccepted(key, login_id, reading.grant), reading.notes)


def service_refused(accept: Packet) -> bool:
    """Whether an Access-Accept names a service that we do not give, which counts as a reject (RFC 2865 §5.6)."""
    return any(service not in _SERVICES_GRANTED for service in accept.integers("Service-Type"))


def reply_message(answer: Packet) -> str:
    """The text for the user (RFC 2865 §5.18): attributes that are full continue in the next, others are lines."""
    text = ""
    for raw, part in zip(answer.octets("Reply-Message"), answer.texts("Reply-Message"), strict=True):
        text += part if len(raw) == _FULL_TEXT else part + "\n"
    return text.rstrip("\n")


def read_grant(accept: Packet, username: str, *, client_view: bool, moment: Moment) -> Reading:
    """Read what an Access-Accept grants; raises DecodeError when an attribute that we honour is not well formed.

    `client_view` turns Input and Output around (option `accounting_view`).
    """
    notes: list[str] = []
    limits, _ = _limits(accept, client_view=client_view, moment=moment, complain=notes.append, remark=notes.append)
    interim = accept.integer("Acct-Interim-Interval")
    identity = accept.octets("Chargeable-User-Identity")
    names = accept.texts("User-Name")
    filters = accept.texts("Filter-Id") + accept.texts("Mikrotik-Group") + accept.texts("Mikrotik-Address-List")
    grant = Grant(
        username=names[0] if names and names[0] else username,
        authenticated_by=AuthenticatedBy.RADIUS,
        limits=limits,
        interim_interval_s=_clamped_interim(interim),
        class_values=_classes(accept, notes.append),
        chargeable_user_identity=identity[0] if identity and identity[0] else None,
        reply_message=reply_message(accept),
        redirection_url=_url(accept, notes.append) or "",
        filter_ids=filters,
        devices=accept.integer("Port-Limit") or None,
        reauthenticate_at_end=accept.integer("Termination-Action") == 1,
    )
    return Reading(grant, tuple(notes))


def read_change(request: Packet, *, client_view: bool, moment: Moment) -> GrantChange:
    """Read what a CoA-Request changes: only what is present, a value of 0 lifts the limit (RFC 5176 §3).

    Raises DecodeError for values of the wrong length and UnacceptableValue for those without meaning.
    """

    def refuse(text: str) -> None:
        raise UnacceptableValue(text)

    limits, changed = _limits(request, client_view=client_view, moment=moment, complain=refuse)
    state = request.integer("ChilliSpot-Session-State")
    if state not in (None, 1, 2):
        raise UnacceptableValue(f"ChilliSpot-Session-State {state} is neither 1 (authorise) nor 2 (log off)")
    return GrantChange(
        limits=limits,
        changed=changed,
        interim_interval_s=_clamped_interim(request.integer("Acct-Interim-Interval")),
        filter_ids=request.texts("Filter-Id") if request.has("Filter-Id") else None,
        redirection_url=_url(request, refuse),
        log_off=state == 2,
    )


def _limits(
    packet: Packet,
    *,
    client_view: bool,
    moment: Moment,
    complain: Callable[[str], None],
    remark: Callable[[str], None] = lambda _: None,
) -> tuple[Limits, frozenset[str]]:
    """The limits in a packet and the names of those fields of Limits about which it says something.

    `complain` hears of values without meaning, `remark` of what was settled between values that differ.
    """
    values: dict[str, int] = {}
    for field, name in (("session_time_s", "Session-Timeout"), ("idle_time_s", "Idle-Timeout")):
        if (seconds := packet.integer(name)) is not None:
            values[field] = seconds
    ends: list[float] = []
    if packet.of_vendors:  # all others are theirs, and most answers have none of them
        values.update(_quotas(packet, client_view=client_view))
        values.update(_rates(packet, complain, remark))
        ends.extend(_ends(packet, moment, complain))
    limits = Limits(
        session_time_s=values.get("session_time_s"),
        idle_time_s=values.get("idle_time_s"),
        upload_bytes=values.get("upload_bytes") or None,
        download_bytes=values.get("download_bytes") or None,
        total_bytes=values.get("total_bytes"),
        upload_bps=values.get("upload_bps"),
        download_bps=values.get("download_bps"),
        terminate_unix=min(ends, default=None),
    )
    return limits, frozenset(values) | ({"terminate_unix"} if ends else frozenset())


def _quotas(packet: Packet, *, client_view: bool) -> dict[str, int]:
    """The smallest quota per direction, of those present; 0 is no quota."""
    from_client, to_client = (_OUTPUT, _INPUT) if client_view else (_INPUT, _OUTPUT)
    found: dict[str, int] = {}
    for field, pairs in (
        ("upload_bytes", (_RECV, from_client)),
        ("download_bytes", (_XMIT, to_client)),
        ("total_bytes", _TOTALS),
    ):
        quotas = [quota for pair in pairs if (quota := _wide(packet, *pair)) is not None]
        if quotas:
            found[field] = min((quota for quota in quotas if quota), default=0)
    return found


def _wide(packet: Packet, low_name: str, high_name: str) -> int | None:
    low = packet.integer(low_name)
    high = packet.integer(high_name) if high_name else None
    return None if low is None and high is None else ((high or 0) << 32) + (low or 0)


def _rates(packet: Packet, complain: Callable[[str], None], remark: Callable[[str], None]) -> dict[str, int]:
    """The rate per direction from the first source that names one."""
    mikrotik: tuple[int, int] | None = None
    if texts := packet.texts("Mikrotik-Rate-Limit"):
        mikrotik = _mikrotik_rate(texts[0])
        if mikrotik is None:
            complain(f"Mikrotik-Rate-Limit {texts[0]!r} is not a rate such as 2M/10M")
    found: dict[str, int] = {}
    for number, (field, sources) in enumerate((("upload_bps", _UPLOAD_RATES), ("download_bps", _DOWNLOAD_RATES))):
        # Every source is read, so that a value of the wrong length is found even behind one that wins.
        named = [(name, value * unit) for name, unit in sources if (value := packet.integer(name)) is not None]
        if any(name == "Ascend-Xmit-Rate" for name, _ in named):  # then the other one is about upload alone
            named = [(name, rate) for name, rate in named if name != "Ascend-Data-Rate"]
        if mikrotik is not None:
            named.insert(0, ("Mikrotik-Rate-Limit", mikrotik[number]))
        if named:
            first, found[field] = named[0]
            losers = [f"{name} ({rate:,} bit/s)" for name, rate in named[1:] if rate != found[field]]
            if losers:
                way = field.removesuffix("_bps")
                remark(f"{way} rate by {first} ({found[field]:,} bit/s), not by {' or '.join(losers)}")
    return found


def _mikrotik_rate(text: str) -> tuple[int, int] | None:
    """Upload and download in bit/s of `rx[/tx] [bursts …]`, rx being from the client; None when it is malformed."""
    words = text.split()
    if not 1 <= len(words) <= 6:
        return None
    for position, word in enumerate(words):
        parts = word.split("/")
        if len(parts) > 2 or not all(_RATE.fullmatch(part) for part in parts):
            return None
        if position == 4 and len(parts) != 1:  # the priority is one number
            return None
    rates = [int(found[1]) * _SCALE[found[2]] for part in words[0].split("/") if (found := _RATE.fullmatch(part))]
    return rates[0], rates[-1]


def _ends(packet: Packet, moment: Moment, complain: Callable[[str], None]) -> Iterator[float]:
    """Wall-clock ends that a packet names (WISPr 9 and 10)."""
    for text in packet.texts("WISPr-Session-Terminate-Time"):
        end = _terminate_time(text.strip(), moment)
        if end is None:
            complain(f"WISPr-Session-Terminate-Time {text!r} is not a time such as 2026-08-30T22:00:00+02:00")
        else:
            yield end
    for text in packet.texts("WISPr-Session-Terminate-End-Of-Day"):
        if text.strip().lower() in ("1", "true", "yes") and moment.unix is not None:
            today = datetime.fromtimestamp(moment.unix, UTC).astimezone(moment.zone)
            midnight = datetime.combine(today.date() + timedelta(days=1), datetime.min.time(), moment.zone)
            yield midnight.timestamp()


def _terminate_time(text: str, moment: Moment) -> float | None:
    if not _TERMINATE_TIME.fullmatch(text):
        return None
    try:
        end = datetime.fromisoformat(text)
        return (end if end.tzinfo else end.replace(tzinfo=moment.zone)).timestamp()
    except (ValueError, OverflowError):  # such as the 31st of February
        return None


def _classes(accept: Packet, complain: Callable[[str], None]) -> tuple[bytes, ...]:
    """What is echoed in accounting (RFC 2865 §5.25), in order, as many as fit into each of its packets."""
    values = [value for value in accept.octets("Class") if value]
    kept: list[bytes] = []
    room = MAX_CLASS_OCTETS
    for value in values:
        room -= len(value) + 2
        if room < 0:
            complain(f"only {len(kept)} of {len(values)} Class attributes fit into accounting packets")
            break
        kept.append(value)
    return tuple(kept)


def _clamped_interim(interval_s: int | None) -> int | None:
    return max(interval_s, MINIMUM_INTERIM_S) if interval_s else interval_s


def _url(packet: Packet, complain: Callable[[str], None]) -> str | None:
    """WISPr-Redirection-URL, which may go on over several attributes; None when absent or no web address."""
    if not packet.has("WISPr-Redirection-URL"):
        return None
    url = "".join(packet.texts("WISPr-Redirection-URL")).strip()
    if url and (not url.startswith(("http://", "https://")) or len(url) > _MAX_URL or not url.isprintable()):
        complain(f"WISPr-Redirection-URL {url[:80]!r} is not a web address")
        return None
    return url
