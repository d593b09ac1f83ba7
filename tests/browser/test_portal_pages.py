"""Every page of the portal in a browser: for everybody, on the narrowest phone, light, whole, and from nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Response, expect

from tests.browser.chromium import DESK, SMALL, accessibility_faults, chromium, hold, visit
from tests.browser.portals import SIGHTS, portals

pytestmark = pytest.mark.slow
WEIGHT_LIMIT_BYTES = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """All portals."""
    with portals() as found:
        yield found


def weight(answers: list[Response]) -> int:
    """Octets that came for a page: heads and bodies, as the browser counted them."""
    sizes = [answer.request.sizes() for answer in answers]
    return sum(size["responseHeadersSize"] + size["responseBodySize"] for size in sizes)


def test_every_page_is_accessible_light_and_fits(browser: Browser, addresses: dict[str, str]) -> None:
    """axe finds nothing serious in either theme, nothing wider than 320 px, 60 kB or other origins."""
    faulty = []
    for sight in SIGHTS:
        context, page, faults = visit(browser, SMALL)
        faults.expected = sight.statuses
        answers: list[Response] = []

        def keep(answer: Response, answers: list[Response] = answers) -> None:
            answers.append(answer)

        page.on("response", keep)
        page.goto(addresses[sight.portal] + sight.path)
        if sight.act is not None:
            answers.clear()
            sight.act(page)
            page.wait_for_load_state()
        hold(page)
        found = accessibility_faults(page, *sight.allowed) + faults.found
        page.emulate_media(color_scheme="dark")
        found += [f"in the dark {line}" for line in accessibility_faults(page, only="color-contrast")]
        if page.evaluate("document.documentElement.scrollWidth") > SMALL[0]:
            found.append("is too wide")
        if weight(answers) > WEIGHT_LIMIT_BYTES:
            found.append(f"weighs {weight(answers)} octets")
        if context.cookies():
            found.append("sets a cookie")
        faulty += [f"{sight.name}: {line}" for line in found]
        context.close()
    assert not faulty, "\n".join(faulty)


def test_what_is_written_from_the_right_stands_on_the_right(browser: Browser, addresses: dict[str, str]) -> None:
    """An operator's Arabic sentences turn the whole page round; the code stays as it is printed."""
    context, page, faults = visit(browser, DESK)
    page.goto(f"{addresses['right-to-left']}/?lang=es")
    assert page.locator("html").get_attribute("dir") == "rtl"
    expect(page.locator(".lead")).to_have_css("direction", "rtl")
    card, mark = page.locator(".card").bounding_box(), page.locator(".mark").bounding_box()
    assert card is not None
    assert mark is not None
    assert mark["x"] > card["x"] + card["width"] / 2, "the mark is on the right half"
    assert page.locator("#code").evaluate("field => getComputedStyle(field).direction") == "ltr"
    page.goto(f"{addresses['right-to-left']}/?lang=en")
    assert page.locator("html").get_attribute("dir") == "ltr"
    faults.check()
    context.close()
