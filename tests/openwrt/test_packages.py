"""What the packages hold, and that the program works from them."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from gateway.config_example import example
from openwrt import ipk
from openwrt.feed_index import write_index
from openwrt.ipk import Package
from openwrt.packages import FEED, USERS
from rootfs.build import IPK_LIMITS
from rootfs.payload import HOME, LAUNCHERS
from tests.openwrt.conftest import EPOCH

# As on a router: no environment, no packages of the system's Python, our tree and the carried libraries alone.
RUN = """\
import importlib, sys
root = {root!r}
sys.path[:0] = [root + "/usr/lib/postern", root + "/usr/lib/postern/vendor", root + "/feed"]
sys.dont_write_bytecode = True
sys.argv = {words!r}
sys.exit(importlib.import_module({module!r}).main())
"""
ALL_TOGETHER_LIMIT_BYTES = 2_000_000


def run(device: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs from the packages' files."""
    [module] = [module for path, module in LAUNCHERS.items() if path.endswith(f"bin/{words[0]}")]
    code = RUN.format(root=str(device), words=list(words), module=module)
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )


def test_each_package_keeps_the_rules_and_its_limit(made: dict[str, Package], tmp_path: Path) -> None:
    """Every package passes our reader, below the size it is held to, and all of them below two megabytes."""
    total = 0
    for package in made.values():
        path = ipk.write(package, tmp_path, EPOCH)
        assert ipk.problems(path) == []
        assert path.stat().st_size <= IPK_LIMITS[package.name], package.name
        total += path.stat().st_size
    assert total + IPK_LIMITS["postern-uvloop"] <= ALL_TOGETHER_LIMIT_BYTES


def test_the_program_answers_from_its_packages(device: Path) -> None:
    """The command line, with nothing of this machine but Python itself."""
    done = run(device, "postern", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("postern ")


def test_the_example_is_the_same_from_leaned_sources(device: Path) -> None:
    """Its sentences are docstrings of classes, which stay in that module."""
    done = run(device, "posternd", "--example")
    assert done.returncode == 0, done.stderr
    assert done.stdout == example()


def test_the_configuration_that_is_shipped_has_only_this_machine_against_it(device: Path) -> None:
    """A check complains of nothing but interfaces, which a router has and the test's machine has not."""
    done = run(device, "posternd", "--check", str(device / "etc/config/postern"))
    problems = [line for line in done.stdout.splitlines()[:-1] if "is not an interface of this system" not in line]
    assert problems == []


def test_a_configuration_that_is_switched_off_ends_at_once(device: Path) -> None:
    """What is installed does not serve guests before it is told to."""
    done = run(device, "posternd", str(device / "etc/config/postern"))
    assert done.returncode == 0, done.stderr
    assert "switched off" in done.stdout + done.stderr


def test_a_capture_is_analysed_from_leaned_sources(device: Path, captures: Path) -> None:
    """The analysis runs in a child of its own, which finds its modules in the same tree."""
    smallest = min((path for path in captures.rglob("*.pcap*") if path.is_file()), key=lambda path: path.stat().st_size)
    done = run(device, "postern", "analyze", str(smallest), "--json")
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["schema"].startswith("postern.analysis/")


GATE = ("postern", "postern-vendor")


@pytest.fixture(scope="module")
def gate(made: dict[str, Package], tmp_path_factory: pytest.TempPathFactory, device: Path) -> Path:
    """A root with the gate alone: no administration, no analysis."""
    root = tmp_path_factory.mktemp("gate")
    for name in GATE:
        made[name].tree.write(root, EPOCH)
    (root / "feed").symlink_to(device / "feed")
    return root


@pytest.mark.parametrize("command", ["analyze", "capture"])
def test_a_part_that_is_not_installed_is_named(gate: Path, command: str) -> None:
    """Whoever asks for it reads which package to install, and no traceback; the other commands are as ever."""
    done = run(gate, "postern", command, "list")
    assert done.returncode == 1
    assert done.stderr == (
        f"postern: {command} comes with the package postern-analysis, which is not installed "
        "(OpenWrt: opkg install postern-analysis)\n"
    )
    assert run(gate, "postern", "--help").returncode == 0
    done = run(gate, "postern-web", "--role", "admin")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "postern-web: the administration pages come with the package postern-admin, which is not installed",
    )


def test_the_gate_stands_without_the_other_parts(gate: Path, made: dict[str, Package]) -> None:
    """Every module of its package loads where administration and analysis are missing."""
    modules = [
        path.removeprefix(f"{HOME}/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path, _ in made["postern"].tree
        if path.startswith((f"{HOME}/gateway", f"{HOME}/webui")) and path.endswith(".py")
        if not path.endswith("cli/__main__.py")  # runs what it is told at once
    ]
    code = RUN.format(root=str(gate), words=[], module="gateway").replace(
        "importlib.import_module('gateway').main()",
        f"len([importlib.import_module(name) for name in {modules!r}]) - {len(modules)}",
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_part_tells_a_running_gate_of_itself(made: dict[str, Package]) -> None:
    """What arrives on a running gate is started by a reload; what leaves is stopped."""
    for name, instance in (("postern-admin", "admin"), ("postern-analysis", "worker")):
        assert "/etc/init.d/postern reload" in made[name].arrives
        assert f'"instance":"{instance}"' in made[name].leaves


def test_a_gate_that_is_removed_leaves_nothing_in_the_kernel(made: dict[str, Package]) -> None:
    """It is stopped first, or it would put everything back; a router's own forwarding comes back after it."""
    orders = ["/etc/init.d/postern stop", "/usr/sbin/posternd --withdraw", "/etc/init.d/sysctl restart"]
    assert [line.strip() for line in made["postern"].leaves.splitlines()[2:5]] == orders


@pytest.mark.parametrize("environment", [{"IPKG_INSTROOT": "/x"}, {"PKG_UPGRADE": "1"}], ids=["image", "upgrade"])
def test_scripts_of_packages_do_nothing_where_nothing_runs(
    made: dict[str, Package], environment: dict[str, str], tmp_path: Path
) -> None:
    """An image that is built is not the machine that builds it; an upgrade goes on with the gate as it is."""
    for package in made.values():
        for script in (package.arrives, package.leaves):
            traced = subprocess.run(
                ["/bin/sh", "-x"],
                input=script.replace("/etc/init.d/", f"{tmp_path}/"),
                capture_output=True,
                text=True,
                check=False,
                env={"PATH": "/nowhere", **environment},
            )
            assert traced.returncode == 0
            if "IPKG_INSTROOT" in environment or package.name == "postern":
                assert "withdraw" not in traced.stderr
                assert "reload" not in traced.stderr
                assert "ubus" not in traced.stderr


@pytest.mark.parametrize("role", ["portal", "admin"])
def test_a_web_role_starts_from_its_packages(device: Path, role: str) -> None:
    """All that it imports is carried: a library that no package has would stop it here."""
    module = "webui.portal.service" if role == "portal" else "webui.admin.service"
    code = RUN.format(root=str(device), words=[], module=module).replace(".main())", ".__name__ and 0)")
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_launchers_keep_bytecode_in_ram_and_apart(made: dict[str, Package]) -> None:
    """Bytecode of one user is never read by another, and never written to flash."""
    files = {path: entry for package in made.values() for path, entry in package.tree}
    launchers = [path for path in files if path.startswith(("usr/bin/", "usr/sbin/"))]
    assert sorted(launchers) == sorted(path for path in LAUNCHERS if not path.endswith("postern-trial"))
    for path in launchers:
        text = files[path].data.decode()
        assert text.startswith("#!/usr/bin/python3 -I\n")
        assert 'pycache_prefix = f"/var/run/postern-bytecode/{os.geteuid()}"' in text
        assert text.index("pycache_prefix") < text.index("from ")
        assert ("os.umask(0o027)" in text) == path.startswith("usr/sbin/")
        compile(text, path, "exec")
        assert files[path].mode == 0o755


def test_modes_come_from_the_recipe(made: dict[str, Package]) -> None:
    """Scripts can be run, the configuration is private, and nothing is writable for others."""
    files = made["postern"].tree.files
    assert files["etc/config/postern"].mode == 0o600
    for path in ("etc/init.d/postern", "etc/uci-defaults/90-postern", "etc/hotplug.d/iface/90-postern"):
        assert files[path].mode == 0o755
    assert not any(entry.mode & 0o022 for package in made.values() for _, entry in package.tree)


def test_nothing_secret_or_compiled_is_in_a_package(made: dict[str, Package]) -> None:
    """No bytecode, no keys, no scapy (GPL), no libraries for one processor in packages for all."""
    for package in made.values():
        for path, entry in package.tree:
            assert not path.endswith((".pyc", ".so", ".key", ".pem")), path
            assert "/scapy/" not in path
            assert b"PRIVATE KEY-----\nM" not in entry.data, path


def test_configuration_and_state_survive_an_upgrade_of_the_system(made: dict[str, Package]) -> None:
    """sysupgrade keeps what keep.d lists; the configuration is a conffile for opkg as well."""
    main = made["postern"]
    kept = main.tree.files["lib/upgrade/keep.d/postern"].data.decode().split()
    assert kept == ["/etc/postern/", "/etc/config/postern"]
    assert list(main.conffiles) == ["etc/config/postern"]
    assert b"option state_dir '/etc/postern/state'" in main.tree.files["etc/config/postern"].data


def test_a_user_whose_name_is_part_of_anothers_comes_first() -> None:
    """The system looks for a name anywhere in a group's list: postern-portal there would pass for postern."""
    users = [word.split(":") for word in USERS.split()]
    names = [user for user, *_ in users]
    assert all(other not in name for index, name in enumerate(names) for other in names[index + 1 :])
    assert all(user == group for user, group, *_ in users)
    assert {group for *_, more in users for group in more.split(",")} == {"postern", "postern-admin", "postern-spool"}


def test_the_private_tree_is_ours_alone(made: dict[str, Package]) -> None:
    """No two packages have a file in common."""
    seen: set[str] = set()
    for package in made.values():
        assert not seen & package.tree.files.keys()
        seen |= package.tree.files.keys()
    assert f"{HOME}/gateway/build_id" in seen


def test_luci_asks_only_for_what_its_rights_allow() -> None:
    """The view's one command is the one that the access list names, and its files are JSON that LuCI can read."""
    top = FEED / "luci-app-postern"
    rights = json.loads((top / "root/usr/share/rpcd/acl.d/luci-app-postern.json").read_text())
    menu = json.loads((top / "root/usr/share/luci/menu.d/luci-app-postern.json").read_text())
    assert rights["luci-app-postern"]["read"]["file"] == {"/usr/bin/postern status --json": ["exec"]}
    view = top / "htdocs/luci-static/resources/view" / f"{menu['admin/services/postern']['action']['path']}.js"
    assert "'/usr/bin/postern', [ 'status', '--json' ]" in view.read_text()


def test_a_feeds_index_names_each_package_with_its_hash(made: dict[str, Package], tmp_path: Path) -> None:
    """Plain and packed are the same text; a paragraph for each package, its fields in one order."""
    paths = [ipk.write(package, tmp_path, EPOCH) for package in made.values()]
    plain, packed = write_index(paths, tmp_path)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    paragraphs = plain.read_text().strip().split("\n\n")
    assert len(paragraphs) == len(paths)
    for path, paragraph in zip(sorted(paths), paragraphs, strict=True):
        data = path.read_bytes()
        assert f"Filename: {path.name}\nSize: {len(data)}\nSHA256sum: {hashlib.sha256(data).hexdigest()}\n" in paragraph
        assert paragraph.startswith("Package: ")
