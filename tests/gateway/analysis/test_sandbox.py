"""What a confined process can no longer do; each attempt is made in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis import sandbox

PROJECT = Path(__file__).resolve().parents[3]
CHILD = """
import json, os, sys
from pathlib import Path
import encodings.idna
from gateway.analysis import sandbox
options = json.loads(sys.argv[1])
import socket, ctypes, resource
layers = sandbox.confine(
    sandbox.Limits(**options["limits"]),
    writable=[Path(path) for path in options["writable"]],
    user=tuple(options["user"]) if options["user"] else None,
)
def attempt():
{body}
try:
    outcome = repr(attempt())
except BaseException as err:
    outcome = type(err).__name__ + ":" + str(getattr(err, "errno", ""))
print(json.dumps([[layer._asdict() for layer in layers], outcome]))
"""


def _confined(
    body: str,
    *,
    limits: dict[str, int] | None = None,
    writable: list[Path] | None = None,
    user: tuple[int, int] | None = (65534, 65534) if os.getuid() == 0 else None,
) -> tuple[dict[str, Any], str]:
    code = CHILD.replace("{body}", "\n".join(f"    {line}" for line in body.splitlines()))
    options = {"limits": limits or {}, "writable": [str(path) for path in writable or []], "user": user}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout, done.stderr
    layers, outcome = json.loads(done.stdout)
    return {layer["name"]: layer for layer in layers}, outcome


def _skip_without(layers: dict[str, Any], name: str) -> None:
    if not layers[name]["active"]:
        pytest.skip(f"this kernel or container does without {name}: {layers[name]['detail']}")


def test_every_layer_says_whether_it_holds() -> None:
    """Seven layers are named in order, and those that every kernel has are active."""
    layers, _ = _confined("return 1")
    assert list(layers) == ["rlimits", "priority", "network", "user", "no_new_privs", "landlock", "seccomp"]
    assert layers["rlimits"]["active"]
    assert layers["user"]["active"]
    assert layers["no_new_privs"]["active"]
    assert all(layer["active"] or layer["detail"] for layer in layers.values())


def test_memory_ends_at_the_limit() -> None:
    """An allocation beyond it is a MemoryError, not a swapping box."""
    _, outcome = _confined("return len(bytearray(400 << 20))", limits={"memory_bytes": 256 << 20})
    assert outcome == "MemoryError:"


def test_files_cannot_grow_beyond_the_limit(tmp_path: Path) -> None:
    """Writing on ends with an error."""
    tmp_path.chmod(0o777)
    _, outcome = _confined(
        f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"with open({str(tmp_path / 'a')!r}, 'wb', buffering=0) as f:\n"
        "    f.write(bytes(2000))\n    f.write(bytes(2000))",
        limits={"file_bytes": 2000},
        writable=[tmp_path],
        user=None,
    )
    assert outcome == "OSError:27"


def test_there_is_no_network() -> None:
    """A socket cannot even be made; where that is allowed, nothing can be reached."""
    layers, outcome = _confined(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nreturn s.sendto(b'x', ('192.0.2.1', 9))"
    )
    if not layers["seccomp"]["active"]:
        _skip_without(layers, "network")
    assert outcome in {"PermissionError:1", "OSError:101"}


def test_the_file_system_is_closed() -> None:
    """Neither secrets can be read nor files made outside the allowed trees."""
    layers, outcome = _confined("return open('/etc/passwd').read(3)")
    _skip_without(layers, "landlock")
    assert outcome == "PermissionError:13"
    _, outcome = _confined("return os.mkdir('/tmp/postern-must-not-exist')")
    assert outcome == "PermissionError:13"


def test_a_late_import_of_the_standard_library_still_works() -> None:
    """The interpreter's own tree stays readable, codecs included."""
    _, outcome = _confined("import wave, encodings.cp037\nreturn 'ok'.encode('cp037').decode('cp037')")
    assert outcome == "'ok'"


def test_allowed_trees_can_be_written(tmp_path: Path) -> None:
    """Files can be made, renamed and removed in a writable tree."""
    tmp_path.chmod(0o777)
    _, outcome = _confined(
        f"p = Path({str(tmp_path)!r})\n(p / 'a').write_text('x')\n"
        "(p / 'a').rename(p / 'b')\nreturn (p / 'b').read_text()",
        writable=[tmp_path],
        user=None,
    )
    assert outcome == "'x'"


def test_no_other_program_can_be_started() -> None:
    """Neither by exec nor by a fork."""
    layers, outcome = _confined("return os.fork()")
    _skip_without(layers, "seccomp")
    assert outcome == "PermissionError:1"
    _, outcome = _confined("return os.execv('/bin/true', ['true'])")
    assert outcome.startswith("PermissionError")


@pytest.mark.root
def test_root_becomes_nobody() -> None:
    """A worker that was started as root is nobody afterwards and cannot go back."""
    _, outcome = _confined("return (os.getuid(), os.getgid(), os.getgroups())")
    assert outcome == "(65534, 65534, [])"
    _, outcome = _confined("return os.setuid(0)")
    assert outcome == "PermissionError:1"


def test_every_jump_of_every_system_call_table_lands_in_the_program() -> None:
    """The filters of all architectures are well formed, also those this machine cannot load."""
    for architecture in (sandbox._X86_64, sandbox._AARCH64, sandbox._ARM):
        program = sandbox._seccomp_program(architecture)
        lines = len(program) // 8
        for index in range(lines):
            code, yes, no = program[index * 8], program[index * 8 + 2], program[index * 8 + 3]
            if code & 7 == 5:
                assert index + 1 + max(yes, no) < lines
        assert len(set(architecture.denied)) == len(architecture.denied)
