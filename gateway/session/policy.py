"""What the configuration says about sessions: who is asked, what holds when nobody says otherwise. Pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gateway.config import Config, Zone
from gateway.session.model import (
    AuthenticatedBy,
    ClientKey,
    Credentials,
    Grant,
    GrantChange,
    Limits,
    LoginMethod,
    PapCredentials,
    TerminateCause,
)
from gateway.values import value_class

_FINAL: Final = frozenset(
    {
        TerminateCause.USER_REQUEST,
        TerminateCause.ADMIN_RESET,
        TerminateCause.NAS_REQUEST,
        TerminateCause.SESSION_TIMEOUT,
    }
)


@value_class
class Policy:
    """The part of the configuration that the session core needs."""

    zones: dict[str, Zone]
    max_sessions: int
    session_timeout_s: int
    idle_timeout_s: int
    stats_interval_s: int
    save_interval_s: int
    asks_radius: bool
    accounts: bool  # whether anybody wants accounting records
    interim_interval_s: int
    quota_cause: int

    @classmethod
    def of(cls, config: Config) -> Policy:
        """Take what is needed out of the whole tree."""
        radius = config.radius
        return cls(
            zones={zone.name: zone for zone in config.zones},
            max_sessions=config.performance.max_sessions,
            session_timeout_s=config.performance.session_timeout,
            idle_timeout_s=config.performance.idle_timeout,
            stats_interval_s=config.performance.stats_flush_interval,
            save_interval_s=config.sessions.save_interval,
            asks_radius=any(server.auth_port for server in radius.servers),
            accounts=any(server.acct_port for server in radius.servers),
            interim_interval_s=radius.interim_interval if radius.accounting_interim else 0,
            quota_cause=radius.quota_cause,
        )

    def sources(self, zone: Zone, credentials: Credentials) -> list[str]:
        """Who is asked about these credentials, in order; CHAP cannot be checked against our scrypt hashes."""
        able = {"local": isinstance(credentials, PapCredentials), "radius": self.asks_radius}
        return [source for source in zone.auth if able[source]]

    def limits(self, zone: Zone, granted: Limits) -> Limits:
        """Fill what the grant left open from the zone, then from the gateway's defaults; 0 stands for none."""

        def first(*values: int | None) -> int | None:
            for value in values:
                if value is not None:
                    return value or None
            return None

        return replace(
            granted,
            session_time_s=first(granted.session_time_s, zone.session_timeout, self.session_timeout_s),
            idle_time_s=first(granted.idle_time_s, zone.idle_timeout, self.idle_timeout_s),
            total_bytes=first(granted.total_bytes, zone.quota_total),
            upload_bps=first(granted.upload_bps, zone.rate_up),
            download_bps=first(granted.download_bps, zone.rate_down),
        )

    def interim(self, grant: Grant) -> int:
        """Seconds between interim records, 0 for none; a server's value is at least 60 (RFC 2869 §5.16)."""
        if not self.interim_interval_s or grant.interim_interval_s == 0:
            return 0
        if grant.interim_interval_s is None:
            return max(60, self.interim_interval_s)
        return max(60, grant.interim_interval_s)

    def remembered_until(self, zone: Zone, unix: float | None) -> float | None:
        """Until when a device that logs in now may come back by itself; None: it may not, or the time is unknown."""
        return None if unix is None or not zone.remember else unix + zone.remember * 3600.0

    def devices(self, zone: Zone, grant: Grant) -> int | None:
        """How many devices of the user may be online at once."""
        if grant.devices is not None:
            return grant.devices
        return zone.sessions_per_user or None


def comes_back(cause: TerminateCause) -> bool:
    """Whether a remembered device goes on after such an end: not when somebody ended it, nor when nothing is left."""
    return cause not in _FINAL


def click_grant(key: ClientKey) -> Grant:
    """What a guest gets who accepted the terms: the zone's defaults, under the device's own name."""
    return Grant(username=key.mac.dashed(), authenticated_by=AuthenticatedBy.LOCAL)


def changed_limits(current: Limits, change: GrantChange) -> Limits:
    """A live session's limits after a change; a limit of 0 in the change takes the limit away."""
    values = {name: getattr(change.limits, name) or None for name in change.changed}
    return replace(current, **values)


def changed_grant(current: Grant, change: GrantChange) -> Grant:
    """What else of a live session's grant a change names: where its guest is sent, policies."""
    if change.redirection_url is None and change.filter_ids is None:
        return current
    return replace(
        current,
        redirection_url=current.redirection_url if change.redirection_url is None else change.redirection_url,
        filter_ids=current.filter_ids if change.filter_ids is None else change.filter_ids,
    )


def offers(zone: Zone, method: LoginMethod) -> bool:
    """Whether the zone has this way to log in."""
    return method in zone.methods
