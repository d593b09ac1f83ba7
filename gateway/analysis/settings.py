"""Thresholds of every detector: one frozen class each, every default written once, every range beside it.

An override is written `detector.name=value`, as on the command line (`--set`) and in the configuration. The values
in use are part of each report, so that a finding can be checked against the number that made it.

These are dataclasses to the reader and to the type checker; `_Group` makes them instead of the standard decorator,
which compiles methods for each of thirty classes that nobody calls: that was a third of the time of a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, dataclass_transform

MIB: Final = 1 << 20


class SettingsError(ValueError):
    """An override that does not fit; the text says which, what was given and what is accepted."""


class _Bounded:
    """A default with the range that an override must keep."""

    __slots__ = ("default", "high", "low")

    def __init__(self, default: float, low: float, high: float) -> None:
        self.default = default
        self.low = low
        self.high = high


def _at_least(default: float, low: float, high: float = 1e12) -> Any:  # Any: stands for the value it gives
    return _Bounded(default, low, high)


def _share(default: float) -> Any:
    return _Bounded(default, 0.0, 1.0)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Group:
    """Values by name: the defaults are attributes of the class, what differs is kept in the instance."""

    fields: ClassVar[dict[str, object]]  # name -> default
    ranges: ClassVar[dict[str, tuple[float, float]]]

    def __init_subclass__(cls) -> None:
        cls.fields, cls.ranges = {}, {}
        for name in cls.__annotations__:
            default = cls.__dict__[name]
            if type(default) is _Bounded:
                cls.ranges[name] = (default.low, default.high)
                default = default.default
                setattr(cls, name, default)
            cls.fields[name] = default

    def __init__(self, **values: object) -> None:
        unknown = values.keys() - self.fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def replace(self, **values: object) -> Any:  # Any: mypy has no self type for what the transform builds
        """The same values with some others in their place."""
        return type(self)(**{**self.__dict__, **values})

    def as_dict(self) -> dict[str, object]:
        """All values by name."""
        return {name: getattr(self, name) for name in self.fields}


class Reader(_Group):
    """Bounds of reading the file."""

    max_bytes: int = _at_least(500 * MIB, 24)  # of the file as stored
    max_unpacked: int = _at_least(2048 * MIB, 24)  # of a compressed file once unpacked
    max_ratio: int = _at_least(200, 2)  # unpacked / packed, held against files over 10 MiB unpacked
    decapsulate: bool = False  # look inside GRE, VXLAN, Geneve, ERSPAN, GTP-U and IP in IP


class Tables(_Group):
    """How many entries each table holds before the oldest are folded into totals."""

    half_open: int = _at_least(65_000, 16)
    flows: int = _at_least(50_000, 16)
    hosts: int = _at_least(65_000, 16)
    dns_pending: int = _at_least(4_096, 16)
    fragment_groups: int = _at_least(1_024, 16)
    names: int = _at_least(20_000, 16)  # DNS rows, parents of tunnels, names of hosts
    rows: int = _at_least(1_000, 1, 100_000)  # rows of each list of the report
    frames: int = _at_least(100, 1, 10_000)  # frame numbers kept for each finding


class Handshake(_Group):
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


class Loss(_Group):
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


class Rtt(_Group):
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


class Window(_Group):
    zero_low_s: float = _at_least(0.1, 0)
    zero_medium_s: float = _at_least(1.0, 0)
    zero_high_s: float = _at_least(10.0, 0)
    zero_share_high: float = _share(0.2)
    limited_fill: float = _share(0.9)
    limited_share: float = _share(0.2)


class Throughput(_Group):
    min_segments: int = _at_least(10, 1)
    min_active_s: float = _at_least(0.5, 0)
    slow_bps: float = _at_least(1_000_000, 0)
    slow_min_bytes: int = _at_least(100_000, 0)


class Gap(_Group):
    low_s: float = _at_least(5.0, 0.001)
    medium_s: float = _at_least(30.0, 0.001)
    pause_s: float = _at_least(10.0, 0.001)
    pause_ratio: float = _at_least(20.0, 1)


class Burst(_Group):
    ratio: float = _at_least(5.0, 1)
    min_packets: int = _at_least(50, 1)
    merge_s: float = _at_least(0.2, 0)


class Periodic(_Group):
    min_starts: int = _at_least(6, 3)
    max_spread: float = _share(0.1)


class Jitter(_Group):
    min_packets: int = _at_least(50, 3)
    max_spread: float = _share(0.5)
    low_s: float = _at_least(0.03, 0)
    medium_s: float = _at_least(0.05, 0)
    high_s: float = _at_least(0.1, 0)


class Rtp(_Group):
    loss_low: float = _share(0.01)
    loss_medium: float = _share(0.03)
    loss_high: float = _share(0.1)
    jitter_low_ms: float = _at_least(30, 0)
    jitter_medium_ms: float = _at_least(50, 0)
    jitter_high_ms: float = _at_least(100, 0)
    min_packets: int = _at_least(50, 2)


class Dns(_Group):
    slow_low_s: float = _at_least(0.2, 0)
    slow_medium_s: float = _at_least(1.0, 0)
    timeout_s: float = _at_least(5.0, 0)
    retry_s: float = _at_least(10.0, 0)
    failure_high: float = _share(0.05)
    failure_min: int = _at_least(5, 1)


class Icmp(_Group):
    loop_min: int = _at_least(10, 2)
    pmtu_grace_s: float = _at_least(1.0, 0)
    black_hole_bytes: int = _at_least(1_000, 1)  # a segment this large may be too large for the path
    black_hole_repeats: int = _at_least(3, 1)


class Fragments(_Group):
    timeout_s: float = _at_least(30.0, 0)
    incomplete_medium: float = _share(0.1)
    tiny_bytes: int = _at_least(68, 8)


class Asymmetry(_Group):
    min_packets: int = _at_least(10, 2)
    one_sided_share: float = _share(0.2)


class Tls(_Group):
    slow_low_s: float = _at_least(0.5, 0)
    slow_medium_s: float = _at_least(2.0, 0)


class Http(_Group):
    slow_s: float = _at_least(1.0, 0)
    error_high: float = _share(0.1)
    error_min: int = _at_least(10, 1)


class Dhcp(_Group):
    flood_per_s: int = _at_least(20, 2)
    allowed_servers: str = ""  # addresses, separated by commas


class Arp(_Group):
    conflict_s: float = _at_least(60.0, 0)
    sweep_per_s: int = _at_least(50, 2)


class Mdns(_Group):
    rate_per_s: float = _at_least(50.0, 0)


class Scan(_Group):
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


class BruteForce(_Group):
    window_s: float = _at_least(300.0, 1)
    tries: int = _at_least(10, 2)
    tries_high: int = _at_least(30, 2)
    tries_critical: int = _at_least(100, 2)
    max_spread: float = _share(0.3)
    short_s: float = _at_least(10.0, 0)


class Flood(_Group):
    syn_per_s: int = _at_least(200, 1)
    syn_per_s_critical: int = _at_least(1000, 1)
    udp_per_s: int = _at_least(1000, 1)
    icmp_per_s: int = _at_least(200, 1)
    min_s: int = _at_least(3, 1)
    completed_share: float = _share(0.1)
    median_ratio: float = _at_least(5.0, 1)
    spoofed_sources: int = _at_least(100, 2)


class Amplification(_Group):
    ratio: float = _at_least(10.0, 1)
    min_bytes: int = _at_least(1_000_000, 1)
    min_packets: int = _at_least(20, 1)


class DnsTunnel(_Group):
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


class Exfiltration(_Group):
    low_bytes: int = _at_least(50_000_000, 1)
    medium_bytes: int = _at_least(200_000_000, 1)
    high_bytes: int = _at_least(1_000_000_000, 1)
    ratio: float = _at_least(5.0, 1)
    window_s: float = _at_least(300.0, 1)
    new_peer_bytes: int = _at_least(10_000_000, 1)
    new_peer_ratio: float = _at_least(20.0, 1)
    odd_port_bytes: int = _at_least(5_000_000, 1)


class Beacon(_Group):
    min_starts: int = _at_least(8, 3)
    min_span_s: float = _at_least(600.0, 0)
    min_periods: int = _at_least(8, 2)
    min_period_s: float = _at_least(2.0, 0.1)
    max_period_s: float = _at_least(86_400.0, 1)
    score_low: float = _share(0.8)
    score_medium: float = _share(0.9)
    score_high: float = _share(0.95)


class Lateral(_Group):
    window_s: float = _at_least(300.0, 1)
    targets: int = _at_least(3, 2)
    targets_high: int = _at_least(5, 2)
    tried: int = _at_least(5, 2)


class Allow(_Group):
    """Muted findings: entries `detector source destination port until reason`, separated by semicolons; `*` fits all.

    `until` is a date (2027-01-31) or `*`; a muted finding stays in the report, marked as muted.
    """

    entries: str = ""


class Settings(_Group):
    """All thresholds of one analysis."""

    reader: Reader = Reader()
    tables: Tables = Tables()
    handshake: Handshake = Handshake()
    loss: Loss = Loss()
    rtt: Rtt = Rtt()
    window: Window = Window()
    throughput: Throughput = Throughput()
    gap: Gap = Gap()
    burst: Burst = Burst()
    periodic: Periodic = Periodic()
    jitter: Jitter = Jitter()
    rtp: Rtp = Rtp()
    dns: Dns = Dns()
    icmp: Icmp = Icmp()
    fragments: Fragments = Fragments()
    asymmetry: Asymmetry = Asymmetry()
    tls: Tls = Tls()
    http: Http = Http()
    dhcp: Dhcp = Dhcp()
    arp: Arp = Arp()
    mdns: Mdns = Mdns()
    scan: Scan = Scan()
    brute_force: BruteForce = BruteForce()
    flood: Flood = Flood()
    amplification: Amplification = Amplification()
    dns_tunnel: DnsTunnel = DnsTunnel()
    exfiltration: Exfiltration = Exfiltration()
    beacon: Beacon = Beacon()
    lateral: Lateral = Lateral()
    allow: Allow = Allow()

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
        groups = {detector: getattr(self, detector).replace(**values) for detector, values in changed.items()}
        settings: Settings = self.replace(**groups)
        return settings

    def _parse(self, key: str, detector: str, name: str, text: str) -> object:
        if detector not in self.fields:
            raise SettingsError(f"{key}: there is no detector {detector!r}{_meant(detector, list(self.fields))}")
        group: _Group = getattr(self, detector)
        if name not in group.fields:
            raise SettingsError(f"{key}: {detector} has no setting {name!r}{_meant(name, list(group.fields))}")
        default = group.fields[name]
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
        low, high = group.ranges[name]
        if not low <= value <= high:
            raise SettingsError(f"{key}: {text} is out of range, accepted is {low:g} to {high:g}")
        return value

    def as_dict(self) -> dict[str, Any]:
        """All values by detector and name, as printed in the report."""
        return {name: getattr(self, name).as_dict() for name in self.fields}


def _meant(word: str, known: list[str]) -> str:
    import difflib  # only for a mistake, and it costs a tenth of the start

    close = difflib.get_close_matches(word, known, 1)
    return f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
