"""The clients' table with ten thousand leases: found, sorted and paged by the daemon; the page stays small."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Response, expect

from tests.bench.crowd import POOL, address_of, lease_all, mac_of, settle, widen
from tests.bench.web_stage import SECTIONS
from tests.browser.administration import NAME, PASSWORD, Administration
from tests.browser.chromium import PHONE, accessibility_faults, chromium, visit
from tests.netns.harness import Lab
from tests.netns.hotspot import Hotspot

pytestmark = [pytest.mark.root, pytest.mark.slow]
CLIENTS = 10_000
ROWS_AT_MOST = 100
PAGE_BYTES_AT_MOST = 150_000


@pytest.fixture(scope="module")
def administration() -> Iterator[Administration]:
    """The administration of a gateway that has given out all these addresses."""
    with Lab("browsercrowd", guests_wanted=0) as lab:
        guest = widen(lab)
        zone = f"\toption pool '{POOL}'\n\tlist method 'voucher'\n"
        with Hotspot(lab, zone_options=zone, sections=SECTIONS) as hotspot, Administration(hotspot) as administration:
            settle(lab, guest, CLIENTS)
            lease_all(lab, guest, CLIENTS)
            hotspot.call("accounts.add", name=NAME, password=PASSWORD, role="administrator")
            yield administration


def addresses(page: Page) -> list[str]:
    """The column of addresses, as shown."""
    return [text.split()[0] for text in page.locator('#rows td[data-label="Address"]').all_inner_texts()]


def test_ten_thousand_clients_are_searched_sorted_and_paged(administration: Administration) -> None:
    """Never more than a page of rows in the document or on the wire."""
    origin = administration.origin
    with chromium() as browser:
        context, page, faults = visit(browser, PHONE)
        documents: list[Response] = []

        def keep(answer: Response) -> None:
            if answer.request.is_navigation_request() and answer.status == 200:
                documents.append(answer)

        page.on("response", keep)
        page.goto(origin)
        page.get_by_label("Name").fill(NAME)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        page.goto(f"{origin}/clients?sort=ip")
        expect(page.get_by_text(re.compile(r"^10\s000 clients"))).to_be_visible()
        rows = page.locator("#rows > tr")
        first = addresses(page)
        assert first == [address_of(member) for member in range(len(first))]
        assert 10 <= len(first) <= ROWS_AT_MOST
        assert accessibility_faults(page) == []

        page.get_by_role("link", name="Next").click()
        page.wait_for_url("**page=2**")
        assert addresses(page) == [address_of(member) for member in range(len(first), 2 * len(first))]
        page.goto(f"{origin}/clients?sort=ip&down=1")
        assert addresses(page) == [address_of(CLIENTS - 1 - member) for member in range(len(first))]
        assert rows.count() == len(first)

        for wanted in (str(mac_of(7777)), address_of(7777)):
            page.get_by_role("searchbox").fill(wanted)
            page.get_by_role("button", name="Search").click()
            expect(page.get_by_text("1 client", exact=True)).to_be_visible()
            assert addresses(page) == [address_of(7777)]
        page.get_by_role("searchbox").fill("nobody has this name")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No client fits.")).to_be_visible()

        sizes = [answer.request.sizes()["responseBodySize"] for answer in documents]
        assert max(sizes) < PAGE_BYTES_AT_MOST, sizes
        faults.check()
        context.close()
