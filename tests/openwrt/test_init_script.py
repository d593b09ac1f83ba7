"""The init script under a stand-in for rc.common and procd that notes what it is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openwrt.packages import FEED, USERS

FILES = FEED / "postern" / "files"
SCRIPT = FILES / "etc/init.d/postern"
STAND_IN = Path(__file__).with_name("rc_common.sh")
SHELLS = [["dash"], ["busybox", "sh"]]
ON = (FILES / "etc/config/postern").read_text(encoding="utf-8").replace("option enabled '0'", "option enabled '1'")


@dataclass
class Instance:
    """What procd is told of one process."""

    name: str
    params: dict[str, list[str]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """Program and arguments."""
        return " ".join(self.params["command"])


def calls(
    tmp_path: Path,
    text: str,
    action: str = "start",
    shell: tuple[str, ...] = ("dash",),
    parts: tuple[str, ...] = ("postern-admin", "postern-analysis"),
) -> list[list[str]]:
    """What the script asks for, call by call, on a router with these parts beside the gate."""
    (tmp_path / "postern").write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=tmp_path) as root:
        if "postern-admin" in parts:
            (Path(root) / "usr/lib/postern/webui/admin").mkdir(parents=True)
        if "postern-analysis" in parts:
            (Path(root) / "usr/sbin").mkdir(parents=True)
            (Path(root) / "usr/sbin/postern-worker").touch(mode=0o755)
        done = subprocess.run(
            [*shell, str(STAND_IN), str(SCRIPT), action, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "IPKG_INSTROOT": root},
        )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t") for line in done.stdout.splitlines()]


def instances(found: list[list[str]]) -> dict[str, Instance]:
    """The processes, by name."""
    known: dict[str, Instance] = {}
    current: Instance | None = None
    for name, *words in found:
        if name == "procd_open_instance":
            assert current is None, "an instance within another"
            current = known.setdefault(words[0], Instance(words[0]))
        elif name == "procd_set_param":
            assert current is not None, "a parameter of nothing"
            current.params[words[0]] = words[1:]
        elif name == "procd_close_instance":
            current = None
    assert current is None
    return known


@pytest.mark.parametrize("shell", SHELLS, ids=["dash", "busybox"])
def test_each_process_runs_as_the_user_that_it_is_for(tmp_path: Path, shell: list[str]) -> None:
    """Five processes; only the small helper is root, and the pages are not."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    found = instances(calls(tmp_path, ON, shell=tuple(shell)))
    assert {name: instance.params.get("user", ["root"])[0] for name, instance in found.items()} == {
        "system": "root",
        "posternd": "postern",
        "portal": "postern-portal",
        "admin": "postern-admin-web",
        "worker": "postern-worker",
    }
    made = {word.split(":")[0] for word in USERS.split()}
    assert {instance.params["user"][0] for instance in found.values() if "user" in instance.params} == made


@pytest.mark.parametrize(
    ("parts", "started"),
    [((), []), (("postern-analysis",), ["worker"]), (("postern-admin", "postern-analysis"), ["admin", "worker"])],
)
def test_only_what_is_installed_is_started(tmp_path: Path, parts: tuple[str, ...], started: list[str]) -> None:
    """The gate and the guests' pages are always there; the other processes are packages of their own."""
    found = instances(calls(tmp_path, ON, parts=parts))
    assert list(found) == ["system", "posternd", "portal", *started]


def test_commands_name_the_places_of_a_router(tmp_path: Path) -> None:
    """Sockets, state and captures are where the configuration says, the certificate where a reboot does not take it."""
    found = instances(calls(tmp_path, ON))
    assert {name: instance.command for name, instance in found.items()} == {
        "system": "/usr/sbin/postern-system --run-dir /var/run/postern --admin-web-dir /etc/postern/admin-web "
        "/etc/config/postern",
        "posternd": "/usr/sbin/posternd /etc/config/postern",
        "portal": "/usr/sbin/postern-web --role portal --socket /var/run/postern/control.sock",
        "admin": "/usr/sbin/postern-web --role admin --socket /var/run/postern/control.sock "
        "--state-dir /etc/postern/admin-web --spool /etc/postern/state/spool --capture-limit-mb 32",
        "worker": "/usr/sbin/postern-worker --spool /etc/postern/state/spool",
    }


def test_only_posternd_has_power_over_the_kernel(tmp_path: Path) -> None:
    """Its capabilities are the four of the Debian unit; nobody may get more by a program with more."""
    found = instances(calls(tmp_path, ON))
    assert [name for name, instance in found.items() if "capabilities" in instance.params] == ["posternd"]
    assert found["posternd"].params["capabilities"] == ["/etc/capabilities/postern.json"]
    granted = json.loads((FILES / "etc/capabilities/postern.json").read_text(encoding="utf-8"))
    four = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]
    assert {kind: sorted(names) for kind, names in granted.items()} == dict.fromkeys(
        ["ambient", "bounding", "effective", "inheritable", "permitted"], four
    )
    assert all(instance.params["no_new_privs"] == ["1"] for instance in found.values())


def test_every_process_is_started_again_for_ever_and_heard(tmp_path: Path) -> None:
    """Five seconds after its end, however often; what it writes goes to the system's log."""
    for instance in instances(calls(tmp_path, ON)).values():
        assert instance.params["respawn"] == ["3600", "5", "0"]
        assert instance.params["stdout"] == instance.params["stderr"] == ["1"]
        assert instance.params["limits"] == ["nofile=16384 16384"]


def test_a_changed_configuration_is_a_signal_and_no_restart(tmp_path: Path) -> None:
    """Guests that are online notice nothing of a reload."""
    posternd = instances(calls(tmp_path, ON))["posternd"]
    assert posternd.params["file"] == ["/etc/config/postern"]
    assert posternd.params["reload_signal"] == ["HUP"]


def test_changes_of_configuration_and_interfaces_reload(tmp_path: Path) -> None:
    """Triggers stand whether the gateway is on or off, or it could not be switched on."""
    for text in (ON, ON.replace("enabled '1'", "enabled '0'")):
        found = calls(tmp_path, text)
        assert [call for call in found if "trigger" in call[0]] == [
            ["procd_add_reload_trigger", "postern", "network"],
            ["procd_add_interface_trigger", "interface.*.up", "wan", "/etc/init.d/postern", "reload"],
            ["procd_add_interface_trigger", "interface.*.up", "postern", "/etc/init.d/postern", "reload"],
        ]


def test_a_reload_also_lets_posternd_look_at_the_network(tmp_path: Path) -> None:
    """procd would do nothing when only an interface changed."""
    found = calls(tmp_path, ON, "reload")
    assert found[-1] == ["procd_send_signal", "postern", "posternd", "HUP"]
    assert ["procd_close_service", "set"] in found


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("config postern 'postern'\n\toption enabled '0'\n", False),
        ("config postern\n\toption enabled '0'\n", False),
        ("config postern\n\toption enabled 'off'\n", False),
        ("config postern\n\toption enabled '1'\n", True),
        ("config postern 'mine'\n\toption enabled 'yes'\n", True),
        ("config postern\n", True),  # posternd's own default
        ("config network\n", False),  # nothing says that it is wanted
    ],
)
def test_a_section_counts_with_a_name_or_without(tmp_path: Path, text: str, on: bool) -> None:
    """Switched off, no process is started, no directory made, and the log says how to switch it on."""
    found = calls(tmp_path, text)
    assert bool(instances(found)) == on
    if not on:
        kinds = [call[0] for call in found]
        assert "mkdir" not in kinds
        assert "chown" not in kinds
        [said] = [call for call in found if call[0] == "logger"]
        assert "uci set postern.@postern[0].enabled=1" in said[-1]


def test_places_without_an_option_are_posternds_defaults(tmp_path: Path) -> None:
    """Otherwise the processes would look for each other in two places."""
    found = instances(calls(tmp_path, "config postern\n\toption enabled '1'\n"))
    assert "--socket /run/postern/control.sock" in found["portal"].command
    assert "--spool /var/lib/postern/spool" in found["worker"].command


def test_what_is_given_away_lies_below_directories_of_root(tmp_path: Path) -> None:
    """posternd owns the state directory and could put a link there: root gives away nothing that is in it."""
    found = calls(tmp_path, ON)
    given = [call[-1] for call in found if call[0] in ("chown", "chmod")]
    owned = {"/etc/postern/state", "/var/run/postern"}
    assert owned <= set(given)
    assert not any(path.startswith(tuple(f"{place}/" for place in owned)) for path in given)
    assert ["chmod", "0640", "/etc/config/postern"] in found
    assert ["chmod", "0700", "/etc/postern/admin-web"] in found


def test_captures_lie_in_ram_and_bytecode_by_user(tmp_path: Path) -> None:
    """A link leads from the state directory to RAM; a user that does not exist gets no directory."""
    found = calls(tmp_path, ON)
    assert ["ln", "-sfn", "/var/run/postern-spool", "/etc/postern/state/spool"] in found
    bytecode = [call[1:] for call in found if call[0] == "chown" and "bytecode/" in call[-1]]
    assert bytecode == [
        ["postern", "/var/run/postern-bytecode/32768"],
        ["postern-portal", "/var/run/postern-bytecode/32769"],
        ["postern-admin-web", "/var/run/postern-bytecode/32770"],
    ]


def test_a_place_for_captures_that_the_operator_made_is_left(tmp_path: Path) -> None:
    """A directory or a link to a disk stays."""
    state = tmp_path / "state"
    (state / "spool").mkdir(parents=True)
    found = calls(tmp_path, ON.replace("/etc/postern/state", str(state)))
    assert not [call for call in found if call[0] == "ln" and call[-1].endswith("spool")]


def test_the_service_is_one_of_procd(tmp_path: Path) -> None:
    """It starts late, after the network, and ends early."""
    assert calls(tmp_path, ON)[0] == ["settings", "95", "10", "1"]


def test_a_hotplug_event_returns_at_once(tmp_path: Path) -> None:
    """netifd waits for its scripts: what takes long is done behind its back, and other events are not looked at."""
    script = FILES / "etc/hotplug.d/iface/90-postern"
    slow = tmp_path / "ubus"
    slow.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nsleep 30 & echo $! > {tmp_path}/pid; wait\n')
    slow.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "INTERFACE": "wan", "DEVICE": "eth1"}
    process = subprocess.Popen(["dash", str(script)], env={**environment, "ACTION": "ifup"})
    try:
        assert process.wait(timeout=20) == 0  # long before the call itself would have ended
        for _ in range(200):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip():
                break
            time.sleep(0.05)
        order = (tmp_path / "asked").read_text()
        assert order.startswith("call service signal ")
        assert json.loads(order.removeprefix("call service signal ")) == {
            "name": "postern",
            "instance": "posternd",
            "signal": 1,
        }
    finally:
        subprocess.run(["kill", (tmp_path / "pid").read_text().strip()], check=False, capture_output=True)
    (tmp_path / "asked").unlink()
    subprocess.run(["dash", str(script)], env={**environment, "ACTION": "ifupdate-nothing"}, check=True)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    "path",
    [
        SCRIPT,
        FILES / "etc/hotplug.d/iface/90-postern",
        FILES / "etc/uci-defaults/90-postern",
        STAND_IN,
    ],
    ids=lambda path: path.name,
)
def test_shell_scripts_are_clean(path: Path) -> None:
    """shellcheck, for the shell that a router has."""
    # SC1091: what is sourced is not there to look at. SC1090, SC2034, SC2154: the stand-in sources by a variable.
    words = ["shellcheck", "--shell=dash", "--exclude=SC1090,SC1091,SC2034,SC2154", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == ""
