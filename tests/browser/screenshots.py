"""Pictures of every page, in both colour schemes, on a phone and on a desk, to be looked at by a person.

`./build.sh screenshots [NAME …]` writes them into `screenshots/`, which git ignores, and says what no picture shows:
what is wider than its screen, what axe-core finds, and what the browser complained about. The daemon behind it is a
fake with the guests of a hotel, some with names that no guest should have, and another one with nothing at all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, BrowserContext, Page
from playwright.sync_api import Error as PageError

from tests.browser.chromium import DESK, PHONE, SMALL, Faults, accessibility_faults, chromium, hold, visit
from tests.browser.portals import SIGHTS, in_background, portals
from tests.conftest import CAPTURES
from tests.gateway.analysis.made_packets import conversation, pcap
from tests.webui.admin.capture_admin import Web, running_web, running_worker
from tests.webui.admin.fake_admin import PASSWORD, SETUP_CODE, FakeAdmin, running_admin
from tests.webui.admin.fake_world import bundle_row
from tests.webui.admin.test_captures import finished, upload
from tests.webui.fake_daemon import free_port

FOLDER: Final = Path(__file__).resolve().parents[2] / "screenshots"
_SETTLE_MS: Final = 200
_PICKED: Final = "tcp-loss-http-range.pcap"  # of the shared captures, when they are there


@dataclass(frozen=True)
class Shot:
    """One picture: its name, where, and what is done there first."""

    name: str
    origin: str
    path: str
    session: str = ""  # of the administrator who looks
    act: Callable[[Page], None] | None = None
    expected: tuple[str, ...] = ()  # texts of console messages that are right here
    allowed: tuple[str, ...] = ()  # axe's rules that do not fit here


def _open_all(page: Page) -> None:
    page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")


def _review(text: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.locator("textarea").first.fill(text)
        page.locator("main form button").first.click()

    return act


def _cut_off(page: Page) -> None:
    """Apply what needs a confirmation; the page that counts down is the one to see."""
    _review(f"{page.locator('textarea').input_value()}\n# cut {page.viewport_size}\n")(page)
    page.get_by_role("button", name="Apply").click()
    page.locator("[data-countdown]").wait_for()


def _second_factor(page: Page) -> None:
    page.get_by_label("Name").fill("otto")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Code").wait_for()


def _wrong_password(page: Page) -> None:
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()


def _set_up_wrongly(page: Page) -> None:
    page.get_by_label("Setup code").fill("aaaa-bbbb")
    page.get_by_role("button", name="Continue").click()


def _set_up(page: Page) -> None:
    """To the summary."""
    page.get_by_label("Setup code").fill(SETUP_CODE)
    page.get_by_role("button", name="Continue").click()
    page.get_by_label("Your name").fill("ada")
    for label in ("Password", "The same password again"):
        page.get_by_label(label, exact=True).fill(PASSWORD)
    for _ in range(4):
        page.get_by_role("button", name="Continue").click()


_BAD_TEXT: Final = "config zone 'guests'\n\tlist method 'nonsense'\n"
_OWN: Final[tuple[tuple[str, str, Callable[[Page], None] | None], ...]] = (
    ("dashboard", "/", None),
    ("clients", "/clients", None),
    ("clients-none-found", "/clients?search=nobody-of-this-name", None),
    ("client", "/clients/02:00:5e:00:00:01", None),
    ("client-open", "/clients/02:00:5e:00:00:01", _open_all),
    ("blocked", "/clients/blocked", None),
    ("vouchers", "/vouchers", None),
    ("vouchers-new", "/vouchers/new", _open_all),
    ("vouchers-list", "/vouchers/list?batch=1", None),
    ("vouchers-sheet", "/vouchers/1/sheet", None),
    ("users", "/users", None),
    ("users-new", "/users/new", _open_all),
    ("user", "/users/alice", _open_all),
    ("devices", "/devices", None),
    ("guest-pages", "/pages", None),
    ("guest-words", "/pages/words?lang=de", None),
    ("log", "/log", None),
    ("health", "/health", None),
    ("config", "/config", None),
    ("config-section", "/config/section/zone?name=guests", _open_all),
    ("config-text", "/config/text", None),
    ("config-review", "/config/text", _review("config postern\n\toption log_level 'debug'\n")),
    ("config-problems", "/config/text", _review(_BAD_TEXT)),
    ("config-countdown", "/config/text", _cut_off),
    ("config-history", "/config/history", None),
    ("config-past", "/config/history/1", None),
    ("config-backup", "/config/backup", None),
    ("system", "/system", None),
    ("system-upgrade", "/system/upgrade", None),
    ("account", "/account", None),
    ("account-second-factor", "/account", lambda page: page.get_by_role("button", name="Set up").click()),
    ("accounts", "/accounts", _open_all),
    ("audit", "/accounts/audit", None),
    ("welcome", "/welcome", None),
    ("nothing", "/nothing", None),
)
_EMPTY: Final = (
    *("/", "/clients", "/clients/blocked", "/vouchers", "/users", "/devices", "/pages", "/log", "/config/history"),
    "/accounts/audit",
)
_REPORT: Final = ("", "/flows", "/tcp", "/dns", "/tls", "/http", "/icmp", "/hosts", "/settings", "/exports")


def _of_administration(origin: str, ada: str, fresh_origin: str, fresh: str) -> Iterator[Shot]:
    """Of the pages that need no spool."""
    for name, path, act in _OWN:
        yield Shot(name, origin, path, ada, act, ("400", "404"))
    for path in _EMPTY:
        yield Shot(f"empty-{path.strip('/').replace('/', '-') or 'dashboard'}", fresh_origin, path, fresh)
    yield Shot("login", origin, "/login")
    yield Shot("login-refused", origin, "/login", act=_wrong_password, expected=("401",))
    yield Shot("login-second-factor", origin, "/login", act=_second_factor)


def _of_captures(web: Web) -> Iterator[Shot]:
    """Of the captures: the list with one that could not be read, and every page of a report."""
    picked = CAPTURES / _PICKED
    made = pcap(conversation(lost=True))
    good = upload(web, picked.read_bytes() if picked.exists() else made, "guest-complains-about-slow-page.pcap")[2]
    small = upload(web, made, "%3Cb%3Ename%22%26.pcap")[2]
    upload(web, made[:24], "nothing-but-a-head.pcap")
    for job in (good, small):
        finished(web, str(job["task_id"]))
    origin, base = f"https://127.0.0.1:{web.port}", f"/captures/{good['task_id']}"
    yield Shot("captures", origin, "/captures", "ada")
    for path in _REPORT:
        yield Shot(f"report{path.replace('/', '-')}", origin, base + path, "ada", expected=("404",))
    yield Shot("report-findings-open", origin, base, "ada", _open_all)
    yield Shot("report-small", origin, f"/captures/{small['task_id']}", "ada")
    yield Shot("report-flow", origin, f"{base}/flows", "ada", lambda page: page.locator("tbody a").first.click())
    yield Shot("report-flow-small", origin, f"/captures/{small['task_id']}/flows/C1", "ada", _open_all)
    yield Shot("report-packet", origin, f"/captures/{small['task_id']}/packets/4", "ada")


@contextmanager
def everything() -> Iterator[list[Shot]]:
    """Serve every page there is; gives what is to be taken."""
    fake, fresh, empty = FakeAdmin(), FakeAdmin(setup_needed=True), FakeAdmin()
    fake.world.populate(120)
    fake.world.bundle = bundle_row()
    fake.totp.add("otto")
    ports = free_port(), free_port(), free_port()

    with tempfile.TemporaryDirectory(prefix="postern-screenshots-") as folder:
        spool = Path(folder, "spool")
        spool.mkdir()

        async def serve(stack: AsyncExitStack) -> None:
            for one, port in zip((fake, fresh, empty), ports, strict=True):
                await stack.enter_async_context(running_admin(one, port, Path(folder)))

        with in_background(serve), portals() as guests, running_worker(spool), running_web(spool) as web:
            own, first, bare = (f"https://127.0.0.1:{port}" for port in ports)
            yield [
                *_of_administration(own, fake.log_in(), bare, empty.log_in()),
                Shot("setup", first, "/setup"),
                Shot("setup-summary", first, "/setup", act=_set_up),
                Shot("setup-refused", first, "/setup", act=_set_up_wrongly, expected=("400", "401", "429")),
                *_of_captures(web),
                *(
                    Shot(f"portal-{one.name}", guests[one.portal], one.path, "", one.act, one.statuses, one.allowed)
                    for one in SIGHTS
                ),
            ]


def take(browser: Browser, shots: Sequence[Shot], size: tuple[int, int], device: str, dark: bool) -> int:
    """Take these pictures; says and counts what they do not show."""
    found = 0
    scheme = "dark" if dark else "light"
    open_contexts: dict[tuple[str, str], tuple[BrowserContext, Page, Faults]] = {}
    for shot in shots:
        key = shot.origin, shot.session
        if key not in open_contexts:
            open_contexts[key] = visit(browser, size, dark=dark)
            if shot.session:
                cookie = {"name": "__Host-postern", "value": shot.session, "url": shot.origin, "secure": True}
                open_contexts[key][0].add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict of Playwright's
        _, page, faults = open_contexts[key]
        faults.expected = shot.expected
        faults.found.clear()
        page.goto(shot.origin + shot.path)
        try:
            if shot.act is not None:
                shot.act(page)
        except PageError as err:  # the other pictures are taken all the same
            faults.found.append(f"could not be done: {err.message[:200]}")
        hold(page)
        page.wait_for_timeout(_SETTLE_MS)
        page.screenshot(path=str(FOLDER / f"{shot.name}-{device}-{scheme}.png"), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        wrong = [f"is {wide} px wide"] if wide > size[0] else []
        wrong += accessibility_faults(page, *shot.allowed) + faults.found
        for line in wrong:
            print(f"{shot.name} ({shot.path}) on a {device}, {scheme}: {line}", flush=True)
        found += len(wrong)
    for context, _, _ in open_contexts.values():
        context.close()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Take all pictures; 1 when something is wrong that no picture shows."""
    parser = argparse.ArgumentParser(prog="./build.sh screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these pictures; a name may be the beginning of several")
    names = tuple(parser.parse_args(argv).names)
    FOLDER.mkdir(exist_ok=True)
    found = 0
    with everything() as shots, chromium() as browser:
        chosen = [shot for shot in shots if not names or shot.name.startswith(names)]
        for size, device in ((DESK, "desk"), (PHONE, "phone")):
            for dark in (False, True):
                found += take(browser, chosen, size, device, dark)
        guests = [shot for shot in chosen if shot.name.startswith("portal-")]
        found += take(browser, guests, SMALL, "small", False)
    print(f"{len(list(FOLDER.glob('*.png')))} pictures in {FOLDER}; {found} faults that they do not show")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
