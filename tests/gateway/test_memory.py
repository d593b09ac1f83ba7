"""What the daemon does not take into memory."""

from __future__ import annotations

import subprocess
import sys

from rootfs.payload import PROJECT

# Each has what needs it import it when it is asked for: they cost a start time and stay for good.
SPARED = ("argparse", "bz2", "lzma", "shutil", "ssl", "tempfile", "sqlite3.dump", "scapy", "unittest", "http")


def test_the_daemon_imports_nothing_that_its_start_does_not_need() -> None:
    """What archives, servers of HTTP, TLS and the reading of options need is not in the daemon's memory."""
    script = (
        "import sys; import gateway.__main__, gateway.memory; gateway.memory.import_loops_without_tls(); "
        "import gateway.daemon; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, check=True, timeout=60, capture_output=True, text=True
    )
    assert not set(SPARED) & set(done.stdout.split())
