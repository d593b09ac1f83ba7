"""The seal on a guest interface: a filter at its tc ingress hook, without which no routing rule is needed (`program`).

It stays when our table goes and when we end, and goes with its interface or with whoever removes the interface's
filters. Other filters there are left alone; ours has the first place, because one that redirects frames would keep
them from it. What is asked for here blocks for as long as the kernel takes, and raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from gateway.datapath.nfnetlink import ACK, CREATE, REQUEST, attribute, attributes, nested
from gateway.datapath.program import OURS, in_network_order, name_of, seal_program
from gateway.datapath.rtnetlink import ERROR_NUMBER, HEADER, NETLINK_ROUTE, READ_BYTES, WAIT_S, dump
from gateway.datapath.ruleset import sealed_mark

_NEW_HOOKS, _DELETE_HOOKS, _GET_HOOKS = 36, 37, 38
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_EXCLUSIVE: Final = 0x200
_GONE: Final = (errno.ENOENT, errno.ENODEV, errno.EINVAL)  # the filter, the interface, the hooks
_MESSAGE: Final = struct.Struct("=BxxxiIII")  # tcmsg: family, interface, handle, parent, info
_HOOKS: Final = 0xFFFFFFF1  # TC_H_CLSACT
_HOOKS_HANDLE: Final = 0xFFFF0000
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_HANDLE: Final = 0x706F7374  # of our filter among others of its kind and place
_FIRST: Final = 1 << 16 | in_network_order(0x0003)  # preference 1, all protocols
_KIND, _OPTIONS = 1, 2
_PROGRAM, _NAME, _FLAGS = 6, 7, 8
_DIRECT: Final = 1  # the program's answer is the verdict

_LOAD: Final = 5  # BPF_PROG_LOAD
_SCHED_CLS: Final = 3
_LICENCE: Final = b"MIT\0"
_KERNEL_NAME: Final = b"postern_seal"
# By machine and size of a pointer, because a 64-bit kernel runs programs of 32 bits, which call by other numbers.
_CALL_NUMBERS: Final = {
    ("x86_64", 8): 321,
    ("x86_64", 4): 357,
    ("i686", 4): 357,
    ("i586", 4): 357,
    ("aarch64", 8): 280,
    ("aarch64", 4): 386,
    ("armv8l", 4): 386,
    ("armv7l", 4): 386,
    ("armv6l", 4): 386,
    ("riscv64", 8): 280,
    ("loongarch64", 8): 280,
    ("mips", 4): 4355,
    ("mips64", 8): 5315,
    ("ppc64le", 8): 361,
    ("ppc64", 8): 361,
}


def why_not() -> str:
    """Why this system takes no such program; empty when it does."""
    try:
        os.close(load(seal_program(sealed_mark(""))))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def seals() -> dict[int, str]:
    """The name of our filter on each interface that has one, by index, also those of other versions."""
    return {
        index: name
        for index in _hooks()
        for handle, name in _filters(index, _INGRESS)
        if handle == _HANDLE and name.startswith(OURS)
    }


def seal(index: int, interface: str) -> None:
    """Put the filter on an interface, or in the place of another version's."""
    program = load(seal_program(sealed_mark(interface)))
    try:
        hooks = _MESSAGE.pack(socket.AF_UNSPEC, index, _HOOKS_HANDLE, _HOOKS, 0) + attribute(_KIND, b"clsact\0")
        _ask(_NEW_HOOKS, CREATE | _EXCLUSIVE, hooks, errno.EEXIST)
        options = nested(
            _OPTIONS,
            attribute(_PROGRAM, struct.pack("=I", program)),
            attribute(_NAME, name_of(interface).encode() + b"\0"),
            attribute(_FLAGS, struct.pack("=I", _DIRECT)),
        )
        _ask(_NEW_FILTER, CREATE, _place(index) + options)
    except FileNotFoundError as error:
        missing = "the kernel lacks sch_ingress or cls_bpf (OpenWrt: kmod-sched-bpf)"
        raise FileNotFoundError(errno.ENOENT, missing) from error
    finally:
        os.close(program)  # the filter holds it


def unseal(index: int) -> None:
    """Take our filter away, and the hooks when nobody else filters there."""
    _ask(_DELETE_FILTER, 0, _place(index), *_GONE)
    if _hooks().get(index) == "clsact" and not any(_filters(index, hook) for hook in (_INGRESS, _EGRESS)):
        hooks = _MESSAGE.pack(socket.AF_UNSPEC, index, _HOOKS_HANDLE, _HOOKS, 0) + attribute(_KIND, b"clsact\0")
        _ask(_DELETE_HOOKS, 0, hooks, *_GONE)


def load(instructions: bytes) -> int:
    """Load the program; returns its descriptor. Needs CAP_BPF and CAP_NET_ADMIN; raises OSError."""
    number = _CALL_NUMBERS.get((os.uname().machine, struct.calcsize("P")))
    if number is None:
        raise OSError(errno.ENOSYS, f"no number of bpf(2) is known for {os.uname().machine}")
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(_LICENCE)
    attributes = struct.pack(
        "=IIQQIIQII16s",
        _SCHED_CLS,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,  # no log: the program is always the same
        0,
        0,
        0,
        0,
        _KERNEL_NAME,
    )
    held = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(
        ctypes.c_long(number), ctypes.c_long(_LOAD), ctypes.c_void_p(ctypes.addressof(held)), ctypes.c_long(len(held))
    )
    if descriptor < 0:
        reason = ctypes.get_errno()
        raise OSError(reason, f"bpf(2): {os.strerror(reason)}")
    return int(descriptor)


def _place(index: int) -> bytes:
    return _MESSAGE.pack(socket.AF_UNSPEC, index, _HANDLE, _INGRESS, _FIRST) + attribute(_KIND, b"bpf\0")


def _hooks() -> dict[int, str]:
    """The interfaces where frames can be filtered as they come in, and by what kind of hooks."""
    found = {}
    for data, start, end in dump(_GET_HOOKS, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _family, index, _handle, parent, _info = _MESSAGE.unpack_from(data, start)
        if parent == _HOOKS:
            for kind, first, last in attributes(data, start + _MESSAGE.size, end):
                if kind == _KIND:
                    found[index] = _text(data[first:last])
    return found


def _filters(index: int, hook: int) -> list[tuple[int, str]]:
    """Handle and name of each filter at a hook; the name is empty where a filter has none."""
    found = []
    for data, start, end in dump(_GET_FILTER, _MESSAGE.pack(socket.AF_UNSPEC, index, 0, hook, 0)):
        handle = _MESSAGE.unpack_from(data, start)[2]
        name = ""
        for kind, first, last in attributes(data, start + _MESSAGE.size, end):
            if kind == _OPTIONS:
                for option, begins, ends in attributes(data, first, last):
                    if option == _NAME:
                        name = _text(data[begins:ends])
        found.append((handle, name))
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")


def _ask(kind: int, flags: int, body: bytes, *harmless: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as asking:
        asking.settimeout(WAIT_S)
        asking.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
        answer = asking.recv(READ_BYTES)
    number = -ERROR_NUMBER.unpack_from(answer, HEADER.size)[0]
    if number and number not in harmless:
        raise OSError(number, os.strerror(number))
