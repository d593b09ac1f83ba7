"""What an analysis process may do: the layers that bound a parser of hostile bytes, and which of them are active.

A worker reads bytes from strangers, so it gives up, in this order: memory, processor time and file size (rlimits),
priority, the network, its user id, new privileges, the file system (landlock) and dangerous system calls (seccomp).
Each layer is independent: kernels and containers lack some of them, and a worker that runs with fewer layers says so
instead of refusing to run. Import everything that will be needed first: after landlock only `readable` can be opened.

The kernel interfaces are called through ctypes, because the standard library has none of them in Python 3.11:
landlock(7), seccomp(2), unshare(2), ioprio_set(2). System call numbers are those of the kernel's own tables.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

GRACE_CPU_S: Final = 10
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
CAPABILITY_VERSION_3: Final = 0x20080522
IOPRIO_WHO_PROCESS: Final = 1
IOPRIO_IDLE: Final = 3 << 13

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same number on every architecture
LANDLOCK_READ: Final = 1 << 2 | 1 << 3  # read a file, read a directory
LANDLOCK_WRITE: Final = 1 << 1 | 1 << 5 | 1 << 8  # write a file, remove and make regular files
LANDLOCK_TRUNCATE: Final = 1 << 14
FS_RIGHTS_BY_ABI: Final = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights an ABI knows; 16 from ABI 5 on


class Limits(NamedTuple):
    """Bounds of one analysis process."""

    memory_bytes: int = 256 << 20  # address space, not resident memory
    cpu_s: int = 30 * 60
    file_bytes: int = 512 << 20  # the largest file it may write
    open_files: int = 64


class Layer(NamedTuple):
    """One layer of confinement: its name, whether it holds, and why not or how far."""

    name: str
    active: bool
    detail: str = ""


class _Architecture(NamedTuple):
    audit: int
    denied: tuple[int, ...]


# socket, socketpair, bind, connect, listen, accept, accept4, sendto, sendmsg; fork, vfork, clone, execve, execveat;
# ptrace, process_vm_*, kill; mount family, chroot, setns, unshare; bpf, perf, keys, modules, kexec, userfaultfd,
# open_by_handle_at, reboot; io_uring, which would do several of these without a system call of their own.
_X86_64: Final = _Architecture(
    0xC000003E,
    (
        41,
        53,
        49,
        42,
        50,
        43,
        288,
        44,
        46,
        57,
        58,
        56,
        59,
        322,
        101,
        310,
        311,
        62,
        165,
        166,
        155,
        161,
        308,
        272,
        321,
        298,
        248,
        249,
        250,
        175,
        313,
        176,
        246,
        320,
        323,
        304,
        169,
        425,
        426,
        427,
    ),
)
_AARCH64: Final = _Architecture(
    0xC00000B7,
    (
        198,
        199,
        200,
        203,
        201,
        202,
        242,
        206,
        211,
        220,
        221,
        281,
        117,
        270,
        271,
        129,
        40,
        39,
        41,
        51,
        268,
        97,
        280,
        241,
        217,
        218,
        219,
        105,
        273,
        106,
        104,
        294,
        282,
        265,
        142,
        425,
        426,
        427,
    ),
)
_ARM: Final = _Architecture(
    0x40000028,
    (
        281,
        288,
        282,
        283,
        284,
        285,
        366,
        290,
        296,
        2,
        190,
        120,
        11,
        387,
        26,
        376,
        377,
        37,
        21,
        52,
        218,
        61,
        375,
        337,
        386,
        364,
        309,
        310,
        311,
        128,
        379,
        129,
        347,
        401,
        388,
        371,
        88,
        425,
        426,
        427,
    ),
)
CLONE3: Final = 435  # answered with ENOSYS, so that libc falls back to clone, which is looked at


def confine(
    limits: Limits,
    *,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    user: tuple[int, int] | None = None,
) -> list[Layer]:
    """Give up everything an analysis does not need, for the rest of this process; returns every layer with its state.

    `user` is (uid, gid) to become when running as root. `readable` and `writable` are the trees that stay open to it
    beside the interpreter's own.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return [
        _limit_resources(limits),
        _lower_priority(libc),
        _leave_network(libc),  # before the user: root may do it without a user namespace
        _change_user(libc, user),
        _refuse_new_privileges(libc),
        _restrict_files(libc, readable, writable),
        _restrict_system_calls(libc),
    ]


def _limit_resources(limits: Limits) -> Layer:
    wanted = (
        ("memory", resource.RLIMIT_AS, limits.memory_bytes),
        ("cpu", resource.RLIMIT_CPU, limits.cpu_s),
        ("file size", resource.RLIMIT_FSIZE, limits.file_bytes),
        ("open files", resource.RLIMIT_NOFILE, limits.open_files),
        ("core", resource.RLIMIT_CORE, 0),
    )
    refused = []
    for name, which, value in wanted:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # Some seconds between the soft limit (SIGXCPU, on which a report of what was read is made) and SIGKILL.
        upper = value + GRACE_CPU_S if which == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else value
        try:
            resource.setrlimit(which, (value, upper))
        except (OSError, ValueError):
            refused.append(name)
    if refused:
        return Layer("rlimits", False, "refused: " + ", ".join(refused))
    return Layer("rlimits", True, f"{limits.memory_bytes >> 20} MB, {limits.cpu_s} s of CPU")


def _lower_priority(libc: ctypes.CDLL) -> Layer:
    missing = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    except OSError:
        missing.append("nice")
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        missing.append("idle scheduling")
    number = {"x86_64": 251, "aarch64": 30, "arm": 314}.get(_machine())
    if number is None or libc.syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE | 7) != 0:
        missing.append("idle disk class")
    return Layer("priority", not missing, "without " + ", ".join(missing) if missing else "nice 19, idle")


def _change_user(libc: ctypes.CDLL, user: tuple[int, int] | None) -> Layer:
    if os.getuid() != 0:
        # A daemon that is not root hands its capabilities on to its children (ambient set): they go here.
        head, none = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
        if libc.capset(head, none) != 0:
            return Layer("user", False, f"capabilities are kept: {os.strerror(ctypes.get_errno())}")
        return Layer("user", True, f"uid {os.getuid()}")
    if user is None or user[0] == 0:
        return Layer("user", False, "runs as root; give the job directory to a user of its own")
    uid, gid = user
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    return Layer("user", True, f"uid {uid}")


def _leave_network(libc: ctypes.CDLL) -> Layer:
    for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            return Layer("network", True, "empty network namespace")
    return Layer("network", False, f"unshare: {os.strerror(ctypes.get_errno())}")


def _refuse_new_privileges(libc: ctypes.CDLL) -> Layer:
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        return Layer("no_new_privs", True)
    return Layer("no_new_privs", False, os.strerror(ctypes.get_errno()))


def _restrict_files(libc: ctypes.CDLL, readable: Sequence[Path], writable: Sequence[Path]) -> Layer:
    abi = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return Layer("landlock", False, os.strerror(ctypes.get_errno()))
    every_right = (1 << FS_RIGHTS_BY_ABI.get(abi, 16)) - 1
    handled = struct.pack("=Q", every_right)
    if abi >= 4:
        handled += struct.pack("=Q", 3)  # bind and connect over TCP
    if abi >= 6:
        handled += struct.pack("=Q", 3)  # abstract unix sockets and signals of others
    ruleset = libc.syscall(LANDLOCK_CREATE, handled, len(handled), 0)
    if ruleset < 0:
        return Layer("landlock", False, os.strerror(ctypes.get_errno()))
    write = (LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_TRUNCATE) & every_right
    interpreter = {Path(sys.prefix), Path(sys.base_prefix), Path(os.__file__).parent, Path(__file__).parents[2]}
    try:
        for path in {*interpreter, *readable}:
            _allow_tree(libc, ruleset, path, LANDLOCK_READ)
        for path in writable:
            _allow_tree(libc, ruleset, path, write)
        if libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) != 0:
            return Layer("landlock", False, os.strerror(ctypes.get_errno()))
    finally:
        os.close(ruleset)
    return Layer("landlock", True, f"ABI {abi}")


def _allow_tree(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # a tree that is not there cannot be opened either
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not path.is_dir():
            rights &= 1 << 1 | 1 << 2 | LANDLOCK_TRUNCATE  # the kernel refuses directory rights on a file
        try:
            libc.syscall(LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
        finally:
            os.close(handle)


def _restrict_system_calls(libc: ctypes.CDLL) -> Layer:
    architecture = {"x86_64": _X86_64, "aarch64": _AARCH64, "arm": _ARM}.get(_machine())
    if architecture is None:
        return Layer("seccomp", False, f"no system call table for {os.uname().machine}")
    program = _seccomp_program(architecture)
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0) != 0:
        return Layer("seccomp", False, os.strerror(ctypes.get_errno()))
    return Layer("seccomp", True, f"{len(architecture.denied) + 1} system calls refused")


def _seccomp_program(architecture: _Architecture) -> bytes:
    """Classic BPF over struct seccomp_data: another architecture kills, a denied number is EPERM, the rest passes."""
    kill, allow, no_permission, no_call = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    denied = architecture.denied
    code = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture.audit),
        (give, 0, 0, kill),
        (load, 0, 0, 0),
        (at_least, len(denied) + 2, 0, 0x40000000),  # the x32 numbers would go round the table
        (equal, len(denied) + 2, 0, CLONE3),
    ]
    code += [(equal, len(denied) - index, 0, number) for index, number in enumerate(denied)]
    code += [(give, 0, 0, allow), (give, 0, 0, no_permission), (give, 0, 0, no_call)]
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def _machine() -> str:
    machine = os.uname().machine
    if sys.maxsize < 1 << 32:  # a 32-bit interpreter speaks the 32-bit table whatever the kernel is
        return "arm" if machine.startswith(("arm", "aarch64")) else machine
    return machine
