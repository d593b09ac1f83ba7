"""What keeps a page true while it is looked at: parts made anew when something happened, and sent where they changed.

A page names the place of its stream in `data-live`; `admin.js` puts each part in place of the element with its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from webui.admin.daemon import UNAUTHENTICATED, ControlError
from webui.admin.site import Page
from webui.sse import Event

_SETTLE_S: Final = 0.15  # a login is several events within a few milliseconds
_AWAY_S: Final = 2.0  # before asking a daemon that is not there again

Parts = dict[str, str]  # id of an element -> its html
Make = Callable[[], Awaitable[Event]]


async def occasions(page: Page, every_s: float, client: str | None = None) -> AsyncGenerator[None, None]:
    """Now, then after each event at the gateway (of one client, if named), and every `every_s` seconds at least."""
    happened = asyncio.Event()

    async def follow() -> None:
        while True:
            try:
                async for _ in page.stream("events.follow", client=client):
                    happened.set()
            except ControlError as err:
                if err.code == UNAUTHENTICATED:
                    return  # the next question is refused, and ends the stream
            await asyncio.sleep(_AWAY_S)

    # Not in a group: a generator that is closed early could not leave one in order.
    follower = asyncio.ensure_future(follow())
    try:
        while True:
            yield
            try:
                async with asyncio.timeout(every_s):
                    await happened.wait()
                await asyncio.sleep(_SETTLE_S)
            except TimeoutError:
                pass  # nothing happened; counters and times went on
            happened.clear()
    finally:
        follower.cancel()
        await asyncio.wait((follower,))


async def events(page: Page, make: Make, every_s: float, client: str | None = None) -> AsyncGenerator[Event, None]:
    """`make`'s events, made anew at each occasion and left out when they say nothing new.

    Ends when the login does; waits for a daemon that is restarting.
    """
    said: object = None
    async with aclosing(occasions(page, every_s, client)) as moments:
        async for _ in moments:
            try:
                event = await make()
            except ControlError as err:
                if err.code in (UNAUTHENTICATED, "denied"):
                    yield Event({}, "over")
                    return
                if err.code == "not_found":
                    yield Event({}, "gone")
                    return
                continue
            if event.data != said:
                said = event.data
                yield event


class Changed:
    """Keeps what a page was sent, so that only what changed is sent again."""

    def __init__(self) -> None:
        self._sent: Parts = {}

    def of(self, parts: Parts) -> Parts:
        """The parts that are not as they were sent last; from now on they are."""
        fresh = {name: html for name, html in parts.items() if self._sent.get(name) != html}
        self._sent = parts
        return fresh
