"""Every page that a guest can meet: a portal for each situation, each with a gateway in memory, and how to get there.

A browser is always the guest 127.0.0.1, so one portal shows one situation: its daemon says where that guest stands.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from playwright.sync_api import Page

from tests.webui.fake_daemon import FakeClient, FakeDaemon, free_port, running_portal

GUEST: Final = "127.0.0.1"
# An operator's sentences, in the place of the Spanish ones.
ARABIC: Final = {
    "es": {
        "network": "الشبكة: {name}",
        "login_title": "تسجيل الدخول",
        "login_lead": "سجّل الدخول لاستخدام الإنترنت.",
        "login_button": "تسجيل الدخول",
        "username": "اسم المستخدم",
        "password": "كلمة المرور",
        "http_note": "اكتب هنا فقط كلمة المرور التي أُعطيت لك لهذه الشبكة.",
        "method_password": "باسم المستخدم وكلمة المرور",
        "method_voucher": "بقسيمة",
        "or": "أو",
        "code": "رمز القسيمة",
        "code_hint": "الأحرف الكبيرة والصغيرة والفراغات لا تهمّ.",
        "voucher_button": "استخدام القسيمة",
        "error_code": "لا توجد قسيمة بهذا الرمز.",
        "error_code_advice": "قارن الرمز حرفًا حرفًا ثم حاول مرة أخرى.",
    }
}
_TERMS: Final = (
    "The network is a courtesy of the house and comes without warranty.\n\n"
    "1. Do nothing that the law forbids.\n2. Do not sell what was given to you.\n"
    "3. Large downloads belong into the night; others want to work, too.\n"
    "4. http://example.com/a-very-long-address/that-does-not-break-anywhere/because-it-has-no-blank/at-all.html\n"
) * 3


@dataclass(frozen=True)
class Sight:
    """One page to look at: whose portal, what path, and what the guest does there first."""

    name: str
    portal: str
    path: str = "/"
    act: Callable[[Page], None] | None = None
    statuses: tuple[str, ...] = ()  # of answers that are no 200, as they stand in the browser's console
    allowed: tuple[str, ...] = ()  # axe's rules that do not fit here


def _send(page: Page, **typed: str) -> None:
    """Fill in the fields of these ids and send their form, whatever the language."""
    for name, text in typed.items():
        page.locator(f"#{name}").fill(text)
    page.locator("form", has=page.locator(f"#{name}")).get_by_role("button").click()


def _voucher(page: Page) -> None:
    _send(page, code="7kq2m xw4rt")


def _password(page: Page) -> None:
    _send(page, username="a.guest.with.a.rather.long.name@conference.example.com", password="wrong")


# Pages of a second or three on which there is nothing to read or do but to wait for the next one.
_WAITS: Final = ("meta-refresh",)
SIGHTS: Final = (
    Sight("all-methods", "all"),
    Sight("all-methods-german", "all", "/?lang=de"),
    Sight("all-methods-french", "all", "/?lang=fr"),
    Sight("all-methods-spanish", "all", "/?lang=es"),
    Sight("click", "click"),
    Sight("click-terms-open", "click", act=lambda page: page.locator("summary").click()),
    Sight("voucher", "voucher"),
    Sight("voucher-filled-in", "voucher", "/?code=7kq2m-xw4rt"),
    Sight("voucher-unknown", "voucher", act=_voucher),
    Sight("voucher-used-up", "used-up", act=_voucher),
    Sight("password", "password"),
    Sight("password-wrong", "password", act=_password),
    Sight("password-timeout", "timeout", act=_password, statuses=("504",)),
    Sight("password-throttled", "throttled", act=_password, statuses=("429", "503")),
    Sight("status", "online", "/status"),
    Sight("status-german", "online", "/status?lang=de"),
    Sight("status-unlimited", "unlimited", "/status"),
    Sight("already-logged-in", "online", "/"),
    Sight("logout", "online", "/logout"),
    Sight("logged-out", "all", "/logged-out"),
    Sight("terms", "click", "/terms"),
    Sight("terms-long", "long-terms"),
    Sight("no-terms", "voucher", "/terms"),
    Sight("no-lease", "no-lease", statuses=("403",)),
    Sight("being-connected", "connecting", allowed=_WAITS),
    Sight("moment", "gone", statuses=("503",), allowed=_WAITS),
    Sight("not-found", "all", "/nothing/here", statuses=("404",)),
    Sight("right-to-left", "right-to-left", "/?lang=es"),
    Sight("right-to-left-refused", "right-to-left", "/?lang=es", act=_voucher),
)


def _daemons() -> dict[str, FakeDaemon]:
    """The gateway behind each portal."""

    def daemon(methods: str, **more: object) -> FakeDaemon:
        made = FakeDaemon(free_port(), title="Hotel Miramar", ssid="Miramar Guests", methods=methods.split())
        for name, value in more.items():
            setattr(made, name, value)
        return made

    def guest(**more: object) -> dict[str, FakeClient]:
        found = FakeClient(GUEST, "02:00:5e:00:00:01", "online")
        for name, value in more.items():
            setattr(found, name, value)
        return {GUEST: found}

    voucher = guest(
        method="voucher",
        username="voucher-3-17",
        seconds_left=5400,
        bytes_left=1_400_000_000,
        upload_bytes=12_000_000,
        download_bytes=654_000_000,
        reply_message="Breakfast is from seven to ten.",
        redirection_url="http://www.example.com/welcome",
    )
    alice = guest(method="password", username="alice", download_bytes=1200)
    refused = "Ask at the reception for a new password."
    return {
        "all": daemon("click voucher password", terms=_TERMS),
        "click": daemon("click", terms=_TERMS),
        "voucher": daemon("voucher", login_result="reject"),
        "used-up": daemon("voucher password", login_result="reject", login_reason="used_up"),
        "password": daemon("password", reject_message=refused, terms=_TERMS),
        "timeout": daemon("password", login_result="timeout"),
        "throttled": daemon("password voucher", login_result="throttled", login_wait_s=95),
        "online": daemon("voucher", clients=voucher, remember=24),
        "unlimited": daemon("password", clients=alice),
        "long-terms": daemon("click", terms=_TERMS * 9),
        "no-lease": daemon("click", without_lease={GUEST}),
        "connecting": daemon("click", clients=guest(state="authenticating")),
        "gone": daemon("click"),
        "right-to-left": daemon("voucher password", login_result="reject", texts=ARABIC),
    }


@contextmanager
def in_background(serve: Callable[[AsyncExitStack], Awaitable[None]]) -> Iterator[None]:
    """Run what `serve` starts in an event loop in a thread of its own, until the block is left."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await serve(stack)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(60), "the pages are not served"
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextmanager
def portals() -> Iterator[dict[str, str]]:
    """All portals on loopback; gives their addresses by the names that `SIGHTS` use."""
    daemons = _daemons()

    async def serve(stack: AsyncExitStack) -> None:
        for daemon in daemons.values():
            await stack.enter_async_context(running_portal(daemon))
        daemons["gone"].stop()

    with in_background(serve):
        yield {name: f"http://127.0.0.1:{daemon.port}" for name, daemon in daemons.items()}
