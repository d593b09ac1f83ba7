"""Python comes to a router in pieces: each piece that our code imports is one that the package depends on."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from openwrt.packages import PYTHON
from rootfs.payload import HOME

# Which package of the official feed (24.10) has which modules; python3-light has everything else, but for NOWHERE.
OWNERS = {
    "python3-asyncio": {"asyncio"},
    "python3-codecs": {"unicodedata", "_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp", "_codecs_kr"},
    "python3-ctypes": {"ctypes", "_ctypes"},
    "python3-dbm": {"dbm", "_dbm", "_gdbm"},
    "python3-decimal": {"decimal", "_decimal", "_pydecimal"},
    "python3-distutils": {"distutils"},
    "python3-email": {"email"},
    "python3-lib2to3": {"lib2to3"},
    "python3-logging": {"logging"},
    "python3-lzma": {"lzma", "_lzma"},
    "python3-multiprocessing": {"multiprocessing", "_multiprocessing", "_posixshmem"},
    "python3-ncurses": {"curses", "_curses", "_curses_panel"},
    "python3-openssl": {"ssl", "_ssl", "_hashlib"},
    "python3-pydoc": {"pydoc", "pydoc_data", "doctest"},
    "python3-readline": {"readline"},
    "python3-sqlite3": {"sqlite3", "_sqlite3"},
    "python3-unittest": {"unittest"},
    "python3-urllib": {"urllib"},
    "python3-uuid": {"uuid", "_uuid"},
    "python3-venv": {"venv"},
    "python3-xml": {"xml", "xmlrpc", "pyexpat", "_elementtree"},
    "nowhere": {"tkinter", "_tkinter", "turtle", "turtledemo", "idlelib", "ensurepip", "test", "webbrowser"},
}
OWNER_OF = {module: package for package, modules in OWNERS.items() for module in modules}
# Imported where they are installed, and done without where not.
OPTIONAL = {"uvloop", "httptools", "scapy", "gateway.analysis._usual"}

# Imports everything that the code imports anywhere, in functions too, where what no dependency has is not to be had.
WALK = """\
import importlib, json, sys
sys.dont_write_bytecode = True
sys.path[:0] = {path!r}
missing = set({missing!r})

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError("a router does not have " + name, name=name)

sys.meta_path.insert(0, Missing())
failed = {{}}
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
    if name == "gateway.datapath.netlink":  # loads its library when the daemon opens the kernel's door
        importlib.import_module(name)._iproute_class()
print(json.dumps([failed, sorted(set(sys.modules))]))
"""


def imported(path: Path) -> set[str]:
    """Every module that a source names in an import, also within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def walk(device: Path, names: list[str]) -> tuple[dict[str, str], set[str]]:
    """Import modules as a router would; returns which failed and why, and everything that was loaded."""
    code = WALK.format(
        path=[str(device / HOME), str(device / HOME / "vendor"), str(device / "feed")],
        missing=sorted(module for module, package in OWNER_OF.items() if package not in PYTHON),
        names=names,
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    failed, loaded = json.loads(done.stdout.splitlines()[-1])
    return failed, set(loaded)


def test_everything_loads_with_the_pieces_that_the_package_depends_on(device: Path) -> None:
    """Daemon, portal, administration, worker and command line, with what each imports only when it needs it."""
    sources = [path for room in ("gateway", "webui") for path in sorted((device / HOME / room).rglob("*.py"))]
    names = set().union(*(imported(path) for path in sources))
    own = {
        ".".join(path.relative_to(device / HOME).with_suffix("").parts).removesuffix(".__init__")
        for path in sources
        if path.name != "__main__.py"
    }
    failed, loaded = walk(device, sorted((names | own) - {"__future__"}))
    assert not [name for name in failed if not {name, name.partition(".")[0]} & OPTIONAL], failed
    needed = {OWNER_OF.get(name.partition(".")[0], "python3-light") for name in loaded}
    assert needed <= set(PYTHON)
    # Nothing is asked of a small flash that is not used. msgpack has a reason of its own; urllib needs email.
    assert set(PYTHON) - needed <= {"python3-msgpack"}


@pytest.mark.parametrize(
    "module",
    [
        "gateway.daemon",
        "gateway.datapath.netlink",
        "webui.portal.service",
        "webui.admin.service",
        "gateway.analysis.worker",
        "gateway.cli.main",
        "gateway.system.__main__",
    ],
)
def test_no_process_holds_what_it_does_not_use(device: Path, module: str) -> None:
    """A heavy library in a process that runs for months is memory that guests could have."""
    failed, loaded = walk(device, [module])
    assert failed == {}
    heavy = {"scapy", "numpy", "unittest", "pydoc", "tkinter", "doctest", "distutils"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
