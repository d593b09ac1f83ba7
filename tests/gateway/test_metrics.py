"""Metrics: the predecessor's names, our own, and a dashboard that asks for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.figures import (
    ControlFigures,
    DatapathFigures,
    DhcpFigures,
    Histogram,
    JournalFigures,
    LoginFigures,
    RadiusFigures,
    RadiusState,
    SessionFigures,
    TimelineFigures,
)
from gateway.metrics import MetricsPage
from tests.gateway.promql import PromqlError, metrics_in

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana-dashboard.json"


class Figures:
    """A gateway on which a little has happened; empty, one that has just started."""

    def __init__(self, *, empty: bool = False) -> None:
        self._empty = empty
        self._logins = LoginFigures()
        self._radius = RadiusFigures()
        if not empty:
            self._logins.attempts["uam"] = 2
            self._logins.outcomes["uam", "success"] = 1
            self._logins.outcomes["uam", "failure"] = 1
            self._logins.durations["uam"] = Histogram((0.05, 20.0), (1, 0, 1), 30.03)
            self._radius.requests["main", "auth", "success"] = 2
            self._radius.requests["spare", "acct", "failure"] = 1
            self._radius.results["main", "auth", "accept"] = 1
            self._radius.results["main", "auth", "reject"] = 1
            self._radius.durations["main", "auth"] = Histogram((0.01, 0.025), (0, 2, 0), 0.04)

    def sessions(self) -> SessionFigures:
        if self._empty:
            return SessionFigures()
        counts = {("guest", "online"): 3, ("guest", "held"): 2, ("staff", "online"): 1}
        return SessionFigures(counts, {"user_request": 4})

    def dhcp(self) -> DhcpFigures:
        if self._empty:
            return DhcpFigures()
        return DhcpFigures({"discover": 7, "request": 9}, {("guest", "bound"): 5}, {"guest": 240})

    def logins(self) -> LoginFigures:
        return self._logins

    def radius(self) -> RadiusFigures:
        return self._radius

    def radius_state(self) -> RadiusState:
        return RadiusState() if self._empty else RadiusState({"main": True, "spare": False}, 2, 12, 61.0)

    def journal(self) -> JournalFigures:
        return JournalFigures(10, 4096, 3, 0)

    def datapath(self) -> DatapathFigures:
        return DatapathFigures(True, 12, 40, 0, 1)

    def control(self) -> ControlFigures:
        return ControlFigures(2, 100, {} if self._empty else {"bad_frame": 1})

    def timeline(self) -> TimelineFigures:
        return TimelineFigures(20, 30)

    def dns_queries(self) -> Mapping[str, int]:
        return {} if self._empty else {"forwarded": 50}

    def dropped(self) -> Mapping[tuple[str, str], int]:
        return {} if self._empty else {("dhcp", "malformed"): 6}

    def errors(self) -> Mapping[str, int]:
        return {} if self._empty else {"radius_timeout": 2}

    def build(self) -> Mapping[str, str]:
        return {"version": "0.1.0", "python": "3.11.2", "loop": "uvloop", "msgpack": "C"}


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, read by Prometheus' own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_predecessors_names_are_exported() -> None:
    """Existing dashboards and alerts find every metric under its old name, with its labels and values."""
    samples = samples_of(MetricsPage(Figures()).text())
    expected = {
        ("chilli_sessions_active_total", ()): 4,
        ("chilli_sessions_active", ()): 4,
        ("chilli_dhcp_requests_total", (("type", "discover"),)): 7,
        ("chilli_http_logins_total", (("type", "uam"),)): 2,
        ("chilli_http_login_outcomes_total", (("status", "failure"), ("type", "uam"))): 1,
        ("chilli_http_login_duration_seconds_count", (("type", "uam"),)): 2,
        # A Reject is an answer: success on the wire.
        ("chilli_radius_requests_total", (("server", "main"), ("status", "success"), ("type", "auth"))): 2,
        ("chilli_radius_requests_total", (("server", "spare"), ("status", "failure"), ("type", "acct"))): 1,
        ("chilli_radius_request_duration_seconds_bucket", (("le", "0.025"), ("server", "main"), ("type", "auth"))): 2,
        ("chilli_radius_request_duration_seconds_bucket", (("le", "0.01"), ("server", "main"), ("type", "auth"))): 0,
    }
    for key, value in expected.items():
        assert samples[key] == value


def test_our_own_names_are_exported() -> None:
    """What the predecessor did not measure, and the process itself."""
    samples = samples_of(MetricsPage(Figures()).text())
    expected = {
        ("postern_sessions", (("state", "held"), ("zone", "guest"))): 2,
        ("postern_sessions_ended_total", (("cause", "user_request"),)): 4,
        ("postern_radius_results_total", (("result", "reject"), ("server", "main"), ("type", "auth"))): 1,
        ("postern_radius_server_up", (("server", "spare"),)): 0,
        ("postern_accounting_queue_records", ()): 12,
        ("postern_dropped_packets_total", (("reason", "malformed"), ("room", "dhcp"))): 6,
        ("postern_errors_total", (("type", "radius_timeout"),)): 2,
        ("postern_datapath_rebuilds_total", ()): 1,
        ("postern_pool_addresses", (("zone", "guest"),)): 240,
    }
    for key, value in expected.items():
        assert samples[key] == value
    assert samples["process_resident_memory_bytes", ()] > 1_000_000


def test_the_text_is_what_the_library_would_write() -> None:
    """Our page and the library's, read by the library's parser, are the same families, samples and values."""

    class Odd(Figures):
        def sessions(self) -> SessionFigures:
            return SessionFigures({('gu"est\n\\n', "online"): 1, ("über", "held"): 2})

    page = MetricsPage(Odd())
    ours = samples_of(page.text())
    theirs = samples_of(generate_latest(page._registry).decode())
    changing = {key for key in ours if key[0].startswith("process_")}
    assert changing == {key for key in theirs if key[0].startswith("process_")}
    assert {key: ours[key] for key in ours.keys() - changing} == {key: theirs[key] for key in theirs.keys() - changing}
    comments = [line for line in page.text().splitlines() if line.startswith("#")]
    assert comments == [line for line in generate_latest(page._registry).decode().splitlines() if line[0] == "#"]


def test_no_http_server_is_imported_for_the_text() -> None:
    """The daemon does not carry the library's servers, and the library can still be imported whole afterwards."""
    script = (
        "import sys; import gateway.metrics; "
        "assert not {'http.server', 'wsgiref', 'prometheus_client.exposition'} & set(sys.modules); "
        "import prometheus_client; prometheus_client.generate_latest(prometheus_client.CollectorRegistry())"
    )
    subprocess.run([sys.executable, "-c", script], cwd=DASHBOARD.parents[1], check=True, timeout=60)


def test_the_misnamed_gauge_stays_a_gauge() -> None:
    """`chilli_sessions_active_total` is a gauge as it was with the predecessor, whatever its ending says."""
    text = MetricsPage(Figures()).text()
    assert "# TYPE chilli_sessions_active_total gauge" in text
    assert "# TYPE chilli_sessions_active gauge" in text
    assert "# TYPE chilli_http_logins_total counter" in text


def test_a_fresh_gateway_exports_the_same_families() -> None:
    """Before anything has happened the families are there already, so that no alert is about a missing metric."""
    families = {family.name for family in text_string_to_metric_families(MetricsPage(Figures()).text())}
    fresh = {family.name for family in text_string_to_metric_families(MetricsPage(Figures(empty=True)).text())}
    assert fresh == families


def test_two_scrapes_of_one_state_are_equal() -> None:
    """A scrape changes nothing (apart from the process's own CPU time and memory)."""
    page = MetricsPage(Figures())
    texts = [[line for line in page.text().splitlines() if "process_" not in line] for _ in range(2)]
    assert texts[0] == texts[1]


def test_label_values_of_operators_cannot_break_the_page() -> None:
    """A zone name with quotes and line ends is escaped."""

    class Odd(Figures):
        def sessions(self) -> SessionFigures:
            return SessionFigures({('gu"est\n\\', "online"): 1})

    samples = samples_of(MetricsPage(Odd()).text())
    assert samples["postern_sessions", (("state", "online"), ("zone", 'gu"est\n\\'))] == 1


def test_a_histogram_is_written_cumulatively() -> None:
    """Counts rise from bound to bound, and the last bucket holds all."""
    histogram = Histogram((0.5, 1.0), (3, 0, 2), 9.5)
    assert histogram.cumulative() == [("0.5", 3.0), ("1.0", 3.0), ("+Inf", 5.0)]


def queries() -> list[str]:
    """Every query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_has_the_five_panels() -> None:
    """Sessions, logins, RADIUS p95, memory and errors, in this order and of these kinds."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert [(panel["id"], panel["title"], panel["type"]) for panel in dashboard["panels"]] == [
        (1, "Active sessions", "gauge"),
        (2, "Logins per second", "timeseries"),
        (3, "RADIUS p95", "timeseries"),
        (4, "Memory", "timeseries"),
        (5, "Errors by type", "table"),
    ]
    assert (
        "histogram_quantile(0.95, sum by (le) (rate(chilli_radius_request_duration_seconds_bucket[5m])))" in queries()
    )


def test_every_query_of_the_dashboard_names_exported_metrics() -> None:
    """Each query parses as PromQL, and what it asks for is exported."""
    exported = {name for name, _ in samples_of(MetricsPage(Figures()).text())}
    for query in queries():
        named = metrics_in(query)
        assert named
        assert named <= exported, query


@pytest.mark.parametrize(
    "query",
    [
        "rate(a)",
        "sum by (a (b)",
        "sum(rate(a[5m])",
        "a b",
        "nonsense(a)",
        "a{b}",
        'a{b="c}',
        "histogram_quantile(0.9, a[5m])",
        "",
        "a[5 minutes]",
    ],
)
def test_the_query_checker_refuses_what_is_wrong(query: str) -> None:
    """A checker that accepted anything would prove nothing."""
    with pytest.raises(PromqlError):
        metrics_in(query)


def test_the_query_checker_reads_what_is_right() -> None:
    """Operators, matching, offsets and selectors of the language are understood."""
    query = 'sum without (a) (rate(x_total{b="c",d!~"e"}[5m] offset 1h)) / on (z) group_left y > bool 0.5 or -(w)'
    assert metrics_in(query) == {"x_total", "y", "w"}
