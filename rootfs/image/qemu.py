"""An image in a virtual machine: the command of QEMU, the serial console, the power button and the power plug.

The image itself stays as it is: writes go to an overlay. Without KVM the processor is emulated, which is slow and
complete; KVM is not tried, because nested it may hang where emulation works.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from rootfs.dist import CACHE, DIST
from rootfs.payload import version

ADMIN_PORT: Final = 8443
SSH_PORT: Final = 2222
PORTAL_PORT: Final = 3990
DISK_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Emulator:
    """How a board is emulated."""

    program: str
    package: str  # Debian's, that has the program
    machine: Sequence[str]
    memory_mib: int  # what the smallest of its boards has
    firmware: Path | None = None
    firmware_package: str = ""


EMULATORS: Final = {
    # An Atom, as small appliances have it, whose counter Linux trusts for the time. Of QEMU's own choice, an early
    # Opteron with two sockets, it does not, and asks a slow emulated chip instead.
    "x86_64": Emulator(
        "qemu-system-x86_64",
        "qemu-system-x86",
        ("-machine", "pc", "-cpu", "qemu64,vendor=GenuineIntel,family=6,model=28,stepping=10"),
        512,
    ),
    # Not the Raspberry Pi's hardware: QEMU has none of its Ethernet, radio and firmware. The disk is the Pi's, and an
    # EFI firmware starts its GRUB, as U-Boot does there; the kernel learns of the hardware by a device tree, as there.
    "rpi-arm64": Emulator(
        "qemu-system-aarch64",
        "qemu-system-arm",
        ("-machine", "virt,acpi=off", "-cpu", "cortex-a72"),
        1024,
        Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
        "qemu-efi-aarch64",
    ),
}


class ConsoleError(Exception):
    """The console did not say what was waited for; the message has its last lines."""


@dataclass(slots=True)
class Machine:
    """One virtual machine; use as a context manager, which pulls the plug at the end."""

    board: str
    disk: Path  # an overlay of the image, as `overlay` makes it
    network: Sequence[str]  # QEMU's arguments for the two cards
    prefix: Sequence[str] = ()  # what runs QEMU, such as ip netns exec NAME
    transcript: IO[str] | None = None  # takes all that the console says, each line with its time since the start
    log: str = ""
    started: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pull_the_plug()

    def start(self) -> None:
        """Switch it on."""
        self.log, self.started = "", time.monotonic()
        self._process = subprocess.Popen(
            # Each restart is a QEMU of its own. One that has run a kernel before takes minutes to unpack the next:
            # whatever lies in a page that holds translated code is written octet by octet.
            [*self.prefix, *command(self.board, self.disk, self.network), "-no-reboot"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def pull_the_plug(self) -> None:
        """Off, at once, whatever it does."""
        if self._process is None:
            return
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._selector.unregister(self._process.stdout)
        self._process.stdout.close()
        self._process.stdin.close()
        self._process = None

    def restarted(self, timeout_s: float) -> None:
        """Wait until it starts anew by itself, whatever the reason, and let it; raises ConsoleError."""
        assert self._process is not None
        ends = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > ends:
                raise ConsoleError(f"it never started anew; the console's end:\n{self.log[-3000:]}")
            self._read(1.0)
        self.pull_the_plug()
        self.start()

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self._process is not None and self._process.poll() is None

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """Read the console until it says something; raises ConsoleError. What was said before counts as well."""
        ends = time.monotonic() + timeout_s
        while True:
            if match := re.search(pattern, self.log):
                return match
            left = ends - time.monotonic()
            if left <= 0 or not self._read(min(left, 1.0)):
                raise ConsoleError(f"the console never said {pattern!r}; its end:\n{self.log[-3000:]}")

    def listen(self) -> None:
        """Take in what the console has said by now."""
        while self._selector.select(0) and self._read(0):
            continue

    def forget(self) -> None:
        """From here on only what comes counts."""
        self.log = ""

    def type(self, text: str) -> None:
        """Type a line at the console."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, line: str, timeout_s: float = 60) -> str:
        """Run a line in the console's shell and return what it printed."""
        mark = f"done-{time.monotonic_ns()}"
        self.forget()
        # Written in two halves, so that the echo of the line is not taken for its end.
        self.type(f"{line}; echo {mark[:4]}''{mark[4:]}")
        self.wait_for(mark, timeout_s)
        text = self.log[: self.log.index(mark)].replace("\r", "")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.split("\n", 1)[1] if "\n" in text else "")

    def _read(self, timeout_s: float) -> bool:
        if not self._selector.select(timeout_s):
            return self.running
        assert self._process is not None
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), 65536)
        text = data.decode("utf-8", "replace")
        self.log += text
        if self.transcript is not None:
            at = f"\n{time.monotonic() - self.started:7.2f} "
            self.transcript.write(text.replace("\r", "").replace("\n", at))
            self.transcript.flush()
        return bool(data)


def command(board: str, disk: Path, network: Sequence[str]) -> list[str]:
    """How QEMU is called for a board."""
    emulator = EMULATORS[board]
    return [
        *(emulator.program, *emulator.machine, "-accel", "tcg", "-smp", "2", "-m", str(emulator.memory_mib)),
        *(("-bios", str(emulator.firmware)) if emulator.firmware else ()),
        *("-nographic", "-drive", f"if=none,id=disk,file={disk},format=qcow2"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=0"),
        *("-device", "i6300esb", "-action", "watchdog=reset"),
        *network,
    ]


def overlay(image: Path, goal: Path) -> None:
    """A disk that begins as the image and keeps its own changes; larger, as a real disk is."""
    arguments = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "raw", str(goal), str(DISK_BYTES)]
    subprocess.run(arguments, check=True)


def unpacked(board: str, cache: Path) -> Path:
    """The built image, unpacked into the cache when that is older; raises FileNotFoundError with what to do."""
    packed = DIST / f"postern-{version()}-{board}.img.zst"
    if not packed.exists():
        raise FileNotFoundError(f"{packed} is not there: sudo ./build.sh image {board}")
    raw = cache / f"{board}.img"
    if not raw.exists() or raw.stat().st_mtime < packed.stat().st_mtime:
        subprocess.run(["zstd", "--quiet", "--force", "--decompress", str(packed), "-o", str(raw)], check=True)
    return raw


def forwarded() -> list[str]:
    """Two cards without any right: the uplink through QEMU, its ports on loopback; the guests' card leads nowhere."""
    ports = f"hostfwd=tcp:127.0.0.1:{ADMIN_PORT}-:8443,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"
    return [
        *("-netdev", f"user,id=uplink,{ports}", "-device", "virtio-net-pci,netdev=uplink,romfile="),
        *("-netdev", "user,id=guests,restrict=on", "-device", "virtio-net-pci,netdev=guests,romfile="),
    ]


def run(board: str, cache: Path) -> int:
    """Boot an image on this terminal until it is switched off; returns QEMU's exit code."""
    image = unpacked(board, cache)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        disk = Path(name) / "disk.qcow2"
        overlay(image, disk)
        print(f"Administration: https://127.0.0.1:{ADMIN_PORT}   SSH: ssh -p {SSH_PORT} operator@127.0.0.1")
        print("The console is this terminal; Ctrl-A then X switches off.", flush=True)
        return subprocess.run(command(board, disk, forwarded()), check=False).returncode


def missing_tool(board: str) -> str | None:
    """The Debian package of what is missing to boot a board, if anything is."""
    emulator = EMULATORS[board]
    if emulator.firmware and not emulator.firmware.exists():
        return emulator.firmware_package
    for name, provider in ((emulator.program, emulator.package), ("qemu-img", "qemu-utils"), ("zstd", "zstd")):
        if shutil.which(name) is None:
            return provider
    return None


def main(arguments: Sequence[str]) -> int:
    """`boot BOARD`; returns the exit code."""
    [board] = arguments
    if package := missing_tool(board):
        print(f"a tool is missing: apt-get install {package}", file=sys.stderr)
        return 3
    try:
        return run(board, CACHE)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
