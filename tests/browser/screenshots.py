"""Pictures of every page, in both colour schemes, on a phone and on a desk, to be looked at by a person.

`./build.sh screenshots [PATH …]` writes them into `screenshots/`, which git ignores, and says what no picture shows:
what is wider than its screen, what axe-core finds, and what the browser complained about. The daemon behind it is a
fake with the guests of a hotel, some with names that no guest should have.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.browser.chromium import DESK, PHONE, accessibility_faults, chromium, visit
from tests.webui.admin.fake_admin import FakeAdmin, running_admin
from tests.webui.fake_daemon import FakeDaemon, free_port, running_portal

FOLDER: Final = Path(__file__).resolve().parents[2] / "screenshots"
PAGES: Final = (
    *("/", "/clients", "/clients/02:00:5e:00:00:01", "/clients/blocked"),
    *(
        "/vouchers",
        "/vouchers/new",
        "/vouchers/list?batch=1",
        "/vouchers/1/sheet",
        "/users",
        "/users/new",
        "/users/alice",
    ),
    *("/devices", "/log", "/health", "/config", "/config/section/zone?name=guests", "/config/text", "/config/history"),
    *("/config/backup", "/account", "/accounts", "/accounts/audit", "/welcome", "/nothing"),
)
STRANGERS: Final = ("/login",)
PORTAL: Final = ("/", "/terms")
_SETTLE_MS: Final = 400


@contextmanager
def in_background(fake: FakeAdmin, fresh: FakeAdmin, portal: FakeDaemon) -> Iterator[tuple[int, int]]:
    """Serve everything from a thread of its own; gives the ports of the pages and of the set-up page."""
    ready = threading.Event()
    ports = free_port(), free_port()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        with tempfile.TemporaryDirectory(prefix="postern-screenshots-") as folder:
            async with (
                running_admin(fake, ports[0], Path(folder)),
                running_admin(fresh, ports[1], Path(folder)),
                running_portal(portal),
            ):
                ready.set()
                await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60), "the pages are not served"
        yield ports
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Take all pictures; 1 when something is wrong that no picture shows."""
    parser = argparse.ArgumentParser(prog="./build.sh screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", help="only these pages of the administration")
    chosen = parser.parse_args(argv).paths
    FOLDER.mkdir(exist_ok=True)
    fake, fresh = FakeAdmin(), FakeAdmin(setup_needed=True)
    fake.world.populate(120)
    portal = FakeDaemon(free_port(), title="Hotel Miramar", ssid="Miramar Guests", terms="Be kind.\n" * 20)
    found = 0
    with in_background(fake, fresh, portal) as (port, fresh_port), chromium() as browser:
        session = fake.log_in()
        own = f"https://127.0.0.1:{port}"
        shots = [(own, path, True, "") for path in chosen or PAGES]
        if not chosen:
            shots += [(own, path, False, "") for path in STRANGERS]
            shots += [(f"https://127.0.0.1:{fresh_port}", "/setup", False, "")]
            shots += [(f"http://127.0.0.1:{portal.port}", path, False, "portal-") for path in PORTAL]
        for size, device in ((DESK, "desk"), (PHONE, "phone")):
            for dark in (False, True):
                for origin, path, known, prefix in shots:
                    context, page, faults = visit(browser, size, dark=dark)
                    faults.expected = ("404",)  # the page that there is not
                    if known:
                        context.add_cookies(
                            [{"name": "__Host-postern", "value": session, "url": origin, "secure": True}]
                        )
                    page.goto(f"{origin}{path}")
                    page.wait_for_timeout(_SETTLE_MS)
                    name = prefix + (path.partition("?")[0].strip("/").replace("/", "_").replace(":", "") or "start")
                    scheme = "dark" if dark else "light"
                    page.screenshot(path=str(FOLDER / f"{name}-{device}-{scheme}.png"), full_page=True)
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    wrong = [f"is {wide} px wide"] if wide > size[0] else []
                    wrong += accessibility_faults(page) + faults.found
                    for line in wrong:
                        print(f"{path} on a {device}, {scheme}: {line}", flush=True)
                    found += len(wrong)
                    context.close()
    print(f"{len(list(FOLDER.glob('*.png')))} pictures in {FOLDER}; {found} faults that they do not show")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
