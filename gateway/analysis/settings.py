"""Thresholds of every detector: one frozen dataclass each, every default written once, every range beside it.

An override is written `detector.name=value`, as on the command line (`--set`) and in the configuration. The values
in use are part of each report, so that a finding can be checked against the number that made it. Nobody compares or
prints these classes, and without the methods for it they are made in half the time, which is a sixth of a start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MIB: Final = 1 << 20


class SettingsError(ValueError):
    """An override that does not fit; the text says which, what was given and what is accepted."""


def _at_least(default: float, low: float, high: float = 1e12) -> Any:  # Any: dataclasses.field is typed by its default
    return field(default=default, metadata={"low": low, "high": high})


def _share(default: float) -> Any:
    return field(default=default, metadata={"low": 0.0, "high": 1.0})


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Reader:
    """Bounds of reading the file."""

    max_bytes: int = _at_least(500 * MIB, 24)  # of the file as stored
    max_unpacked: int = _at_least(2048 * MIB, 24)  # of a compressed file once unpacked
    max_ratio: int = _at_least(200, 2)  # unpacked / packed, held against files over 10 MiB unpacked
    decapsulate: bool = False  # look inside GRE, VXLAN, Geneve, ERSPAN, GTP-U and IP in IP


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Tables:
    """How many entries each table holds before the oldest are folded into totals."""

    half_open: int = _at_least(65_000, 16)
    flows: int = _at_least(50_000, 16)
    hosts: int = _at_least(65_000, 16)
    dns_pending: int = _at_least(4_096, 16)
    fragment_groups: int = _at_least(1_024, 16)
    names: int = _at_least(20_000, 16)  # DNS rows, parents of tunnels, names of hosts
    rows: int = _at_least(1_000, 1, 100_000)  # rows of each list of the report
    frames: int = _at_least(100, 1, 10_000)  # frame numbers kept for each finding


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Handshake:
    slow_medium_s: float = _at_least(0.3, 0)
    slow_high_s: float = _at_least(1.0, 0)
    client_slow_s: float = _at_least(0.3, 0)
    syn_medium: int = _at_least(2, 1)  # repeats of one SYN
    syn_high: int = _at_least(3, 1)
    refused_share: float = _share(0.3)
    refused_min: int = _at_least(5, 1)
    unanswered_s: float = _at_least(10.0, 0)
    half_closed_s: float = _at_least(60.0, 0)
    zombie_s: float = _at_least(60.0, 0)
    ttl_jump: int = _at_least(3, 1, 255)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Loss:
    rate_low: float = _share(0.005)
    rate_medium: float = _share(0.01)
    rate_high: float = _share(0.05)
    min_segments: int = _at_least(50, 1)
    min_count: int = _at_least(3, 1)
    fast_window_s: float = _at_least(0.02, 0)  # an ACK this recent makes a retransmission a fast one
    unknown_irtt_s: float = _at_least(0.003, 0)  # reordering window where no handshake was seen
    dsack_share: float = _share(0.01)
    duplicate_s: float = _at_least(0.001, 0)  # two copies of a packet this close were recorded twice
    duplicate_share: float = _share(0.2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Rtt:
    low_s: float = _at_least(0.15, 0)
    medium_s: float = _at_least(0.4, 0)
    high_s: float = _at_least(0.8, 0)
    bufferbloat_s: float = _at_least(0.2, 0)
    bufferbloat_load: float = _share(0.5)
    min_samples: int = _at_least(5, 1)
    spike_s: float = _at_least(0.1, 0)  # above the median, and
    spike_ratio: float = _at_least(3.0, 1)  # times the median
    spike_min: int = _at_least(3, 1)
    spike_share: float = _share(0.2)  # more than these are no exception but how the path is


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Window:
    zero_low_s: float = _at_least(0.1, 0)
    zero_medium_s: float = _at_least(1.0, 0)
    zero_high_s: float = _at_least(10.0, 0)
    zero_share_high: float = _share(0.2)
    limited_fill: float = _share(0.9)
    limited_share: float = _share(0.2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Throughput:
    min_segments: int = _at_least(10, 1)
    min_active_s: float = _at_least(0.5, 0)
    slow_bps: float = _at_least(1_000_000, 0)
    slow_min_bytes: int = _at_least(100_000, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Gap:
    low_s: float = _at_least(5.0, 0.001)
    medium_s: float = _at_least(30.0, 0.001)
    pause_s: float = _at_least(10.0, 0.001)
    pause_ratio: float = _at_least(20.0, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Burst:
    ratio: float = _at_least(5.0, 1)
    min_packets: int = _at_least(50, 1)
    merge_s: float = _at_least(0.2, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Periodic:
    min_starts: int = _at_least(6, 3)
    max_spread: float = _share(0.1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Jitter:
    min_packets: int = _at_least(50, 3)
    max_spread: float = _share(0.5)
    low_s: float = _at_least(0.03, 0)
    medium_s: float = _at_least(0.05, 0)
    high_s: float = _at_least(0.1, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Rtp:
    loss_low: float = _share(0.01)
    loss_medium: float = _share(0.03)
    loss_high: float = _share(0.1)
    jitter_low_ms: float = _at_least(30, 0)
    jitter_medium_ms: float = _at_least(50, 0)
    jitter_high_ms: float = _at_least(100, 0)
    min_packets: int = _at_least(50, 2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Dns:
    slow_low_s: float = _at_least(0.2, 0)
    slow_medium_s: float = _at_least(1.0, 0)
    timeout_s: float = _at_least(5.0, 0)
    retry_s: float = _at_least(10.0, 0)
    failure_high: float = _share(0.05)
    failure_min: int = _at_least(5, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Icmp:
    loop_min: int = _at_least(10, 2)
    pmtu_grace_s: float = _at_least(1.0, 0)
    black_hole_bytes: int = _at_least(1_000, 1)  # a segment this large may be too large for the path
    black_hole_repeats: int = _at_least(3, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Fragments:
    timeout_s: float = _at_least(30.0, 0)
    incomplete_medium: float = _share(0.1)
    tiny_bytes: int = _at_least(68, 8)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Asymmetry:
    min_packets: int = _at_least(10, 2)
    one_sided_share: float = _share(0.2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Tls:
    slow_low_s: float = _at_least(0.5, 0)
    slow_medium_s: float = _at_least(2.0, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Http:
    slow_s: float = _at_least(1.0, 0)
    error_high: float = _share(0.1)
    error_min: int = _at_least(10, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Dhcp:
    flood_per_s: int = _at_least(20, 2)
    allowed_servers: str = ""  # addresses, separated by commas


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Arp:
    conflict_s: float = _at_least(60.0, 0)
    sweep_per_s: int = _at_least(50, 2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Mdns:
    rate_per_s: float = _at_least(50.0, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Scan:
    window_s: float = _at_least(60.0, 1)
    ports: int = _at_least(15, 2)
    ports_high: int = _at_least(100, 2)
    ports_critical: int = _at_least(1000, 2)
    targets: int = _at_least(15, 2)
    targets_high: int = _at_least(50, 2)
    targets_critical: int = _at_least(256, 2)
    failed_share: float = _share(0.7)
    block_targets: int = _at_least(10, 2)
    block_ports: int = _at_least(10, 2)
    block_each: int = _at_least(3, 1)
    slow_tries: int = _at_least(40, 2)
    slow_failed_share: float = _share(0.9)
    flag_targets: int = _at_least(5, 2)
    udp_ports: int = _at_least(15, 2)
    udp_failed_share: float = _share(0.8)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class BruteForce:
    window_s: float = _at_least(300.0, 1)
    tries: int = _at_least(10, 2)
    tries_high: int = _at_least(30, 2)
    tries_critical: int = _at_least(100, 2)
    max_spread: float = _share(0.3)
    short_s: float = _at_least(10.0, 0)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Flood:
    syn_per_s: int = _at_least(200, 1)
    syn_per_s_critical: int = _at_least(1000, 1)
    udp_per_s: int = _at_least(1000, 1)
    icmp_per_s: int = _at_least(200, 1)
    min_s: int = _at_least(3, 1)
    completed_share: float = _share(0.1)
    median_ratio: float = _at_least(5.0, 1)
    spoofed_sources: int = _at_least(100, 2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Amplification:
    ratio: float = _at_least(10.0, 1)
    min_bytes: int = _at_least(1_000_000, 1)
    min_packets: int = _at_least(20, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class DnsTunnel:
    min_queries: int = _at_least(30, 2)
    distinct_share: float = _share(0.8)
    label_chars: float = _at_least(30, 1)
    entropy_bits: float = _at_least(3.8, 0, 8)
    entropy_min_chars: int = _at_least(20, 1)
    type_share: float = _share(0.3)
    nxdomain_share: float = _share(0.5)
    answer_bytes: float = _at_least(150, 1)
    rate_per_s: float = _at_least(1.0, 0)
    rate_span_s: float = _at_least(60.0, 0)
    min_signals: int = _at_least(3, 1, 6)
    exempt: str = ""  # further parents never reported, separated by commas


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Exfiltration:
    low_bytes: int = _at_least(50_000_000, 1)
    medium_bytes: int = _at_least(200_000_000, 1)
    high_bytes: int = _at_least(1_000_000_000, 1)
    ratio: float = _at_least(5.0, 1)
    window_s: float = _at_least(300.0, 1)
    new_peer_bytes: int = _at_least(10_000_000, 1)
    new_peer_ratio: float = _at_least(20.0, 1)
    odd_port_bytes: int = _at_least(5_000_000, 1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Beacon:
    min_starts: int = _at_least(8, 3)
    min_span_s: float = _at_least(600.0, 0)
    min_periods: int = _at_least(8, 2)
    min_period_s: float = _at_least(2.0, 0.1)
    max_period_s: float = _at_least(86_400.0, 1)
    score_low: float = _share(0.8)
    score_medium: float = _share(0.9)
    score_high: float = _share(0.95)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Lateral:
    window_s: float = _at_least(300.0, 1)
    targets: int = _at_least(3, 2)
    targets_high: int = _at_least(5, 2)
    tried: int = _at_least(5, 2)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Allow:
    """Muted findings: entries `detector source destination port until reason`, separated by semicolons; `*` fits all.

    `until` is a date (2027-01-31) or `*`; a muted finding stays in the report, marked as muted.
    """

    entries: str = ""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Settings:
    """All thresholds of one analysis."""

    reader: Reader = field(default_factory=Reader)
    tables: Tables = field(default_factory=Tables)
    handshake: Handshake = field(default_factory=Handshake)
    loss: Loss = field(default_factory=Loss)
    rtt: Rtt = field(default_factory=Rtt)
    window: Window = field(default_factory=Window)
    throughput: Throughput = field(default_factory=Throughput)
    gap: Gap = field(default_factory=Gap)
    burst: Burst = field(default_factory=Burst)
    periodic: Periodic = field(default_factory=Periodic)
    jitter: Jitter = field(default_factory=Jitter)
    rtp: Rtp = field(default_factory=Rtp)
    dns: Dns = field(default_factory=Dns)
    icmp: Icmp = field(default_factory=Icmp)
    fragments: Fragments = field(default_factory=Fragments)
    asymmetry: Asymmetry = field(default_factory=Asymmetry)
    tls: Tls = field(default_factory=Tls)
    http: Http = field(default_factory=Http)
    dhcp: Dhcp = field(default_factory=Dhcp)
    arp: Arp = field(default_factory=Arp)
    mdns: Mdns = field(default_factory=Mdns)
    scan: Scan = field(default_factory=Scan)
    brute_force: BruteForce = field(default_factory=BruteForce)
    flood: Flood = field(default_factory=Flood)
    amplification: Amplification = field(default_factory=Amplification)
    dns_tunnel: DnsTunnel = field(default_factory=DnsTunnel)
    exfiltration: Exfiltration = field(default_factory=Exfiltration)
    beacon: Beacon = field(default_factory=Beacon)
    lateral: Lateral = field(default_factory=Lateral)
    allow: Allow = field(default_factory=Allow)

    def with_overrides(self, overrides: Mapping[str, str]) -> Settings:
        """These settings with `{"detector.name": "value"}` applied; raises SettingsError naming every one that is
        wrong.
        """
        changed: dict[str, dict[str, object]] = {}
        problems: list[str] = []
        for key, text in overrides.items():
            detector, _, name = key.partition(".")
            try:
                changed.setdefault(detector, {})[name] = self._parse(key, detector, name, text)
            except SettingsError as err:
                problems.append(str(err))
        if problems:
            raise SettingsError("; ".join(problems))
        groups: dict[str, Any] = {  # Any: each group has its own dataclass
            detector: dataclasses.replace(getattr(self, detector), **values) for detector, values in changed.items()
        }
        return dataclasses.replace(self, **groups)

    def _parse(self, key: str, detector: str, name: str, text: str) -> object:
        groups = [group.name for group in dataclasses.fields(self)]
        if detector not in groups:
            raise SettingsError(f"{key}: there is no detector {detector!r}{_meant(detector, groups)}")
        group = getattr(self, detector)
        fields = {item.name: item for item in dataclasses.fields(group)}
        if name not in fields:
            raise SettingsError(f"{key}: {detector} has no setting {name!r}{_meant(name, list(fields))}")
        default = fields[name].default
        if isinstance(default, bool):
            if text.lower() in {"yes", "true", "on", "1"}:
                return True
            if text.lower() in {"no", "false", "off", "0"}:
                return False
            raise SettingsError(f"{key}: {text!r} is not yes or no")
        if isinstance(default, str):
            return text
        whole = isinstance(default, int)
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            raise SettingsError(f"{key}: {text!r} is not a {'whole ' if whole else ''}number") from None
        low, high = fields[name].metadata["low"], fields[name].metadata["high"]
        if not low <= value <= high:
            raise SettingsError(f"{key}: {text} is out of range, accepted is {low:g} to {high:g}")
        return value

    def as_dict(self) -> dict[str, dict[str, object]]:
        """All values by detector and name, as printed in the report."""
        return {
            group.name: {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
            for group in dataclasses.fields(self)
            for value in (getattr(self, group.name),)
        }


def _meant(word: str, known: list[str]) -> str:
    import difflib  # only for a mistake, and it costs a tenth of the start

    close = difflib.get_close_matches(word, known, 1)
    return f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
