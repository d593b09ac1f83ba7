"""The clients' table with ten thousand of them: found, sorted and paged by the gateway, while the page stays small."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser.chromium import DESK, accessibility_faults, chromium, visit
from tests.browser.portals import in_background
from tests.webui.admin.fake_admin import FakeAdmin, running_admin
from tests.webui.fake_daemon import free_port

pytestmark = pytest.mark.slow
CLIENTS = 10_000
ROWS_AT_MOST = 100
PAGE_BYTES_AT_MOST = 200_000


@pytest.fixture(scope="module")
def crowd() -> Iterator[tuple[FakeAdmin, str]]:
    """The administration of a gateway with all these clients, and its address."""
    fake, port = FakeAdmin(), free_port()
    fake.world.populate(CLIENTS)
    with tempfile.TemporaryDirectory(prefix="postern-crowd-") as folder:

        async def serve(stack: AsyncExitStack) -> None:
            await stack.enter_async_context(running_admin(fake, port, Path(folder)))

        with in_background(serve):
            yield fake, f"https://127.0.0.1:{port}"


def addresses(page: Page) -> list[str]:
    """The column of addresses, as shown."""
    return [text.split("\n")[0] for text in page.locator('#rows td[data-label="Address"]').all_inner_texts()]


def test_ten_thousand_clients_are_searched_sorted_and_paged(crowd: tuple[FakeAdmin, str]) -> None:
    """Never more than a page of rows in the document or on the wire."""
    fake, origin = crowd
    with chromium() as browser:
        context, page, faults = visit(browser, DESK)
        cookie = {"name": "__Host-postern", "value": fake.log_in(), "url": origin, "secure": True}
        context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict of Playwright's
        documents: list[Response] = []

        def keep(answer: Response) -> None:
            if answer.request.is_navigation_request():
                documents.append(answer)

        page.on("response", keep)
        page.goto(f"{origin}/clients")
        expect(page.get_by_text(re.compile(r"^10\s000 clients"))).to_be_visible()
        rows = page.locator("#rows > tr")
        assert 10 <= rows.count() <= ROWS_AT_MOST
        assert accessibility_faults(page) == []
        first = addresses(page)

        page.get_by_role("link", name="Next").click()
        page.wait_for_url("**page=2**")
        assert not set(first) & set(addresses(page))
        assert 10 <= rows.count() <= ROWS_AT_MOST

        page.get_by_role("link", name="Data").click()
        page.wait_for_url("**sort=bytes**")
        data = [row.split("↑")[0] for row in page.locator('#rows td[data-label="Data"]').all_inner_texts()]
        busiest = max(fake.world.clients, key=lambda row: int(row["download_bytes"]))
        if str(busiest["ip"]) not in addresses(page):
            assert set(data) == {"↓ 0 B\n"}, "the other end comes first"
            page.get_by_role("link", name="Data").click()
            page.wait_for_url("**down=1**")
        assert addresses(page)[0] == str(busiest["ip"])

        wanted = str(fake.world.clients[7777]["ip"])
        page.get_by_role("searchbox").fill(wanted)
        page.get_by_role("button", name="Search").click()
        page.wait_for_url("**search=**")
        assert wanted in addresses(page)
        assert all(wanted in text for text in addresses(page))
        page.get_by_role("searchbox").fill("nobody has this name")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No client fits.")).to_be_visible()

        sizes = [answer.request.sizes()["responseBodySize"] for answer in documents]
        assert max(sizes) < PAGE_BYTES_AT_MOST, sizes
        faults.check()
        context.close()
