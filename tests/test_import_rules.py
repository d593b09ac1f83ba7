"""Dependencies point one way: each rule with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# What a core must not touch: it decides from events and a time that it is given, so that a test covers an hour at once.
SHELL_MODULES = {
    "asyncio",
    "socket",
    "time",
    "threading",
    "subprocess",
    "pyroute2",
    "pyrad",
    "msgpack",
    "scapy",
    "sqlite3",
}
CORES = [
    "gateway/session/*.py",
    "gateway/dhcp/leases.py",
    "gateway/dhcp/listing.py",
    "gateway/dhcp/pool.py",
    "gateway/dhcp/v4_*.py",
    "gateway/dhcp/waiting.py",
    "gateway/radius/accounting.py",
    "gateway/radius/attributes.py",
    "gateway/radius/breaker.py",
    "gateway/radius/channel.py",
    "gateway/radius/dynauth.py",
    "gateway/radius/exchange.py",
    "gateway/radius/identifiers.py",
    "gateway/radius/requests.py",
    "gateway/radius/tallies.py",
    "gateway/dns/events.py",
    "gateway/dns/message.py",
    "gateway/dns/names.py",
    "gateway/dns/resolv_conf.py",
    "gateway/dns/resolver.py",
    "gateway/dns/upstreams.py",
    "gateway/accounts/codes.py",
    "gateway/accounts/devices.py",
    "gateway/accounts/guessing.py",
    "gateway/accounts/passwords.py",
    "gateway/admin/administrators.py",
    "gateway/admin/audit.py",
    "gateway/admin/codes.py",
    "gateway/admin/credentials.py",
    "gateway/admin/roles.py",
    "gateway/admin/throttle.py",
    "gateway/admin/totp.py",
    "gateway/accounts/users.py",
    "gateway/accounts/vouchers.py",
    "gateway/datapath/ruleset.py",
    "gateway/doctor/box.py",
    "gateway/doctor/certificate.py",
    "gateway/doctor/dhcp_servers.py",
    "gateway/doctor/interfaces.py",
    "gateway/doctor/login_pages.py",
    "gateway/doctor/names.py",
    "gateway/doctor/radius_servers.py",
    "gateway/doctor/routing.py",
    "gateway/doctor/rows.py",
    "gateway/doctor/sockets_in_use.py",
    "gateway/buckets.py",
    "gateway/reports.py",
    "gateway/config.py",
    "gateway/config_backup.py",
    "gateway/backup/sealed.py",
    "gateway/config_change.py",
    "gateway/config_checks.py",
    "gateway/config_loader.py",
    "gateway/uci.py",
    "gateway/history.py",
    "gateway/resume.py",
]
# One door per heavy library: what is behind it can be replaced, and nothing of theirs escapes through our signatures.
DOORS = {
    "pyrad": {"gateway/radius/packets.py"},
    "pyroute2": {"gateway/datapath/netlink.py"},
    "msgpack": {"gateway/journal.py"},
    "scapy": {"gateway/analysis/dissect.py"},
    "prometheus_client": {"gateway/metrics.py", "gateway/figures.py"},
    "uvloop": {"gateway/__main__.py", "webui/__main__.py"},
    "segno": {"webui/admin/qr.py"},
    "sqlite3": {"gateway/accounts/store.py", "gateway/backup/contents.py", "gateway/sqlite_file.py"},
}
# What reads guests' bytes over HTTP has nothing of the daemon but the way to ask it.
WEB_MAY_IMPORT = (
    "gateway.control.client",
    "gateway.control.protocol",
    "gateway.analysis",
    "gateway.addresses",
    "gateway.config",
    "gateway.log",
    "gateway.memory",
    "gateway.buckets",
    "gateway.values",
)


def sources(*patterns: str) -> list[Path]:
    """The project's own modules that match."""
    return sorted(path for pattern in patterns for path in PROJECT.glob(pattern))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; those for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_there_is_something_to_check() -> None:
    """The patterns below match files; a moved core would otherwise go unchecked."""
    for pattern in CORES:
        assert sources(pattern), f"{pattern} matches nothing: adjust the list of cores"
    for doors in DOORS.values():
        for door in doors:
            assert (PROJECT / door).is_file(), f"{door} is gone: adjust the list of doors"


@pytest.mark.parametrize("path", sources(*CORES), ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_core_touches_no_socket_clock_or_heavy_library(path: Path) -> None:
    """Cores are plain synchronous Python."""
    found = {name for name in imports(path) if name.split(".")[0] in SHELL_MODULES}
    assert not found, f"{path.name} is a core and imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("path", sources(*CORES), ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_core_imports_no_shell(path: Path) -> None:
    """What a core uses is a core too, or the one door of a library; the words of the journal's records are shared."""
    doors = {door for doors in DOORS.values() for door in doors}
    for name in imports(path):
        other = PROJECT / f"{name.replace('.', '/')}.py"
        if name.startswith("gateway.") and other.is_file() and str(other.relative_to(PROJECT)) not in doors:
            found = {used for used in imports(other) if used.split(".")[0] in SHELL_MODULES}
            assert not found, f"{path.name} is a core and imports {name}, which imports {', '.join(sorted(found))}"


def test_gateway_never_imports_webui() -> None:
    """The daemon runs without any web process."""
    for path in sources("gateway/**/*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "webui"], path


def test_webui_reaches_the_daemon_only_through_its_socket() -> None:
    """A web process that was broken into can call what the control socket lets it, and nothing else."""
    for path in sources("webui/**/*.py"):
        for name in imports(path):
            if name.split(".")[0] == "gateway":
                assert name.startswith(WEB_MAY_IMPORT), f"{path.relative_to(PROJECT)} imports {name}"


def test_the_analysis_imports_nothing_else_of_the_gateway() -> None:
    """It runs in its own process on a file from a stranger, and could be shipped alone."""
    for path in sources("gateway/analysis/**/*.py"):
        for name in imports(path):
            if name.split(".")[0] == "gateway":
                assert name.startswith("gateway.analysis") or name == "gateway", f"{path.name} imports {name}"


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_heavy_library_has_one_door(library: str) -> None:
    """Only the door module imports it."""
    for path in sources("gateway/**/*.py", "webui/**/*.py"):
        relative = str(path.relative_to(PROJECT))
        if any(name.split(".")[0] == library for name in imports(path)):
            assert relative in DOORS[library], f"{relative} imports {library}; its door is {', '.join(DOORS[library])}"
