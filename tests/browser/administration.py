"""The administration's web process of a hotspot: the real program, as a user without any power, over TLS.

It reaches the daemon through the control socket alone, so it can run in the host's own network namespace, where a
browser finds it on loopback, or in the gateway's, where guests must not find it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.netns.harness import wait_for
from tests.netns.hotspot import ADMIN_USER, START_LIMIT_S, WEB_GROUP, Hotspot
from tests.webui.fake_daemon import free_port

NAME: Final = "ada"
PASSWORD: Final = "four words in a row"


@dataclass
class Administration:
    """A running `postern-web --role admin`; `places` are its listeners, by default one on loopback."""

    hotspot: Hotspot
    places: tuple[str, ...] = ()
    namespace: str = ""  # the host's own when empty
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Administration:
        folder = self.hotspot.directory / "admin-web"
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, ADMIN_USER, WEB_GROUP)
        places = self.places or (f"127.0.0.1:{self.port}",)
        command = [
            *(sys.executable, "-m", "webui", "--role", "admin", "--socket", str(self.hotspot.socket)),
            *("--user", ADMIN_USER, "--state-dir", str(folder), *self.options),
            *(word for place in places for word in ("--listen", place)),
        ]
        before = len(self.log())
        with self.log_path.open("a") as log:
            if self.namespace:
                self.process = self.hotspot.lab.popen(self.namespace, command, stdout=log, stderr=log)
            else:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        started = wait_for(
            lambda: self.log()[before:].count(" listening place=") >= len(places), timeout_s=START_LIMIT_S
        )
        if not started:
            self.close()
            raise AssertionError(f"the administration did not start:\n{self.log()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def origin(self) -> str:
        """Where a browser on this machine finds it."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """What the process writes."""
        return self.hotspot.directory / "postern-admin-web.log"

    def log(self) -> str:
        """The same, read."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def setup_code(self) -> str:
        """The code that the first administrator needs."""
        return str(json.loads(self.hotspot.postern("setup-code", "--json").stdout)["code"])
