"""Prometheus metrics (the only door to prometheus_client): figures in, exposition text out.

One collector reads `figures.Sources` at scrape time, so that nothing is counted twice and a scrape that never comes
costs nothing. The names beginning with `chilli_` are the predecessor's, kept for existing dashboards and alerts;
`chilli_sessions_active_total` is a gauge in spite of its name and has a correctly named twin. Names of our own begin
with `postern_`.

Of prometheus_client three modules are used. Its package imports HTTP servers and clients beside them, two megabytes of
memory, so the package's own beginning is left out and the text format, a page of code, is written here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Final, TypeVar

from gateway.figures import Histogram, Sources


@contextmanager
def _without_package_code(name: str) -> Iterator[None]:
    """Let modules of a package be imported without running its `__init__`; afterwards it can be imported as ever."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        yield
        return
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package
    try:
        yield
    finally:
        del sys.modules[name]


with _without_package_code("prometheus_client"):
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Labels = TypeVar("_Labels", bound=str | tuple[str, ...])  # one label's value, or several labels' values


class MetricsPage:
    """The text that Prometheus reads."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_PosternCollector(sources))
        ProcessCollector(registry=self._registry)

    def text(self) -> str:
        """All metrics in the text format 0.0.4, as they are now."""
        return "".join(_written(metric) for metric in self._registry.collect())


class _PosternCollector(Collector):
    """Turns figures into metric families; every family is there even when it has no samples yet."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not read the sources before they are wired."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        rooms: tuple[Callable[[], Iterator[Metric]], ...] = (
            self._sessions,
            self._dhcp,
            self._logins,
            self._radius,
            self._state_keeping,
            self._edges,
            self._errors,
        )
        for room in rooms:
            yield from room()

    def _sessions(self) -> Iterator[Metric]:
        figures = self._sources.sessions()
        online = sum(count for (_, state), count in figures.by_zone_and_state.items() if state == "online")
        for name in ("chilli_sessions_active_total", "chilli_sessions_active"):
            yield _gauge(name, "Clients that are online now.", online)
        yield _gauges("postern_sessions", "Clients by zone and state.", ("zone", "state"), figures.by_zone_and_state)
        yield _counters(
            "postern_sessions_ended",
            "Sessions that ended, by Acct-Terminate-Cause.",
            ("cause",),
            figures.ended_by_cause,
        )

    def _dhcp(self) -> Iterator[Metric]:
        figures = self._sources.dhcp()
        yield _counters(
            "chilli_dhcp_requests", "DHCP messages from clients, by message type.", ("type",), figures.requests_by_type
        )
        yield _gauges(
            "postern_leases", "Addresses by zone and state.", ("zone", "state"), figures.leases_by_zone_and_state
        )
        yield _gauges("postern_pool_addresses", "Addresses that a zone can give out.", ("zone",), figures.pool_by_zone)

    def _logins(self) -> Iterator[Metric]:
        figures = self._sources.logins()
        yield _counters("chilli_http_logins", "Logins that guests began.", ("type",), figures.attempts)
        yield _counters(
            "chilli_http_login_outcomes", "Logins that were answered.", ("type", "status"), figures.outcomes
        )
        yield _histograms(
            "chilli_http_login_duration_seconds",
            "From a guest's login to its answer.",
            ("type",),
            figures.durations,
        )

    def _radius(self) -> Iterator[Metric]:
        figures = self._sources.radius()
        labels = ("server", "type")
        yield _counters(
            "chilli_radius_requests",
            "Requests to RADIUS servers; a Reject is an answer and counts as success.",
            (*labels, "status"),
            figures.requests,
        )
        yield _histograms(
            "chilli_radius_request_duration_seconds", "From the first sending to the answer.", labels, figures.durations
        )
        yield _counters(
            "postern_radius_results",
            "What RADIUS servers answered: accept, reject, challenge, response, none.",
            (*labels, "result"),
            figures.results,
        )
        state = self._sources.radius_state()
        yield _gauges(
            "postern_radius_server_up", "Whether requests are sent to the server.", ("server",), state.up_by_server
        )
        yield _gauge("postern_radius_in_flight", "RADIUS requests without an answer yet.", state.in_flight)
        yield _gauge("postern_accounting_queue_records", "Accounting records to deliver.", state.queued_records)
        yield _gauge(
            "postern_accounting_queue_age_seconds", "Age of the oldest of them.", round(state.oldest_record_age_s, 3)
        )

    def _state_keeping(self) -> Iterator[Metric]:
        journal = self._sources.journal()
        yield _counter("postern_journal_records", "Records appended to the journal.", journal.records)
        yield _gauge("postern_journal_size_bytes", "Size of the journal's file.", journal.size_bytes)
        yield _counter("postern_journal_syncs", "Times the journal was forced to disk.", journal.syncs)
        yield _counter("postern_journal_failures", "Writes or syncs of it that failed.", journal.failures)
        datapath = self._sources.datapath()
        yield _gauge("postern_datapath_ready", "Whether our nftables table is in place.", int(datapath.ready))
        yield _gauge("postern_datapath_elements", "Set and map elements of clients.", datapath.elements)
        yield _counter("postern_datapath_changes", "Element changes made in the kernel.", datapath.changes)
        yield _counter("postern_datapath_failures", "Changes that the kernel refused.", datapath.failures)
        yield _counter("postern_datapath_rebuilds", "Times our table was lost and rebuilt.", datapath.rebuilds)
        timeline = self._sources.timeline()
        yield _gauge("postern_timeline_events", "Client events held in memory.", timeline.held)
        yield _counter("postern_timeline_events_added", "Client events noted.", timeline.total)

    def _edges(self) -> Iterator[Metric]:
        control = self._sources.control()
        yield _gauge("postern_control_connections", "Connections at the control socket.", control.connections)
        yield _counter("postern_control_requests", "Requests at the control socket.", control.requests)
        yield _counters(
            "postern_control_errors", "Requests there that were refused.", ("code",), control.errors_by_code
        )
        yield _counters(
            "postern_dns_queries",
            "Guests' DNS queries, by what became of them.",
            ("result",),
            self._sources.dns_queries(),
        )
        yield _counters(
            "postern_dropped_packets",
            "Packets and messages that were dropped.",
            ("room", "reason"),
            self._sources.dropped(),
        )

    def _errors(self) -> Iterator[Metric]:
        yield _counters("postern_errors", "What went wrong, by type.", ("type",), self._sources.errors())
        build = self._sources.build()
        labels = ("version", "python", "loop", "msgpack")
        info = GaugeMetricFamily("postern_build_info", "The running program; always 1.", labels=labels)
        info.add_metric([build.get(label, "") for label in labels], 1)
        yield info


def _written(metric: Metric) -> str:
    """One family in the text format: two comments, then its samples."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    help_text = metric.documentation.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {metric.type}"]
    for sample in metric.samples:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(sample.labels.items()))
        lines.append(
            f"{sample.name}{{{labels}}} {_number(sample.value)}" if labels else f"{sample.name} {_number(sample.value)}"
        )
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    """Counts without a fraction; everything else as exactly as Python writes it."""
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def _gauges(name: str, help_text: str, labels: tuple[str, ...], values: Mapping[_Labels, int]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for row, value in _rows(values):
        family.add_metric(row, value)
    return family


def _counters(name: str, help_text: str, labels: tuple[str, ...], values: Mapping[_Labels, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for row, value in _rows(values):
        family.add_metric(row, value)
    return family


def _histograms(name: str, help_text: str, labels: tuple[str, ...], values: Mapping[_Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for key, histogram in sorted(values.items(), key=lambda item: _row(item[0])):
        family.add_metric(_row(key), histogram.cumulative(), histogram.sum_s)
    return family


def _rows(values: Mapping[_Labels, int]) -> list[tuple[tuple[str, ...], float]]:
    """Sorted, so that two scrapes of the same state are equal."""
    return sorted((_row(key), float(value)) for key, value in values.items())


def _row(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key
