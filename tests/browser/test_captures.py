"""Captures in a real browser: dropped, watched, drilled down to a packet; and the same without scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chromium import DESK, PHONE, accessibility_faults, chromium, visit
from tests.gateway.analysis.made_packets import conversation, pcap
from tests.webui.admin.capture_admin import Web, running_web, running_worker
from tests.webui.admin.test_captures import finished, long_capture, upload

CAPTURE = pcap(conversation(lost=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The administration and the worker."""
    spool = tmp_path_factory.mktemp("spool")
    with running_worker(spool), running_web(spool) as running:
        yield running


def log_in(context: BrowserContext, web: Web) -> str:
    """As `ada`; returns the address of the administration."""
    base = f"https://127.0.0.1:{web.port}"
    context.add_cookies([{"name": "__Host-postern", "value": "ada", "url": f"{base}/", "secure": True}])
    return base


def no_wider_than_the_screen(page: Page) -> bool:
    """Whether nothing makes the page scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_a_file_is_dropped_watched_and_drilled_down(browser: Browser, web: Web, tmp_path: Path) -> None:
    """Upload with progress, live analysis, graph with a stretch chosen by dragging, flow, packet; no fault anywhere."""
    path = tmp_path / "visit.pcap"
    path.write_bytes(long_capture(300_000) + CAPTURE[24:])
    context, page, faults = visit(browser, DESK)
    base = log_in(context, web)
    page.goto(f"{base}/captures")
    expect(page.locator("#live-state.on")).to_be_visible()
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_role("button", name="Upload and analyse").click()
    page.wait_for_url(re.compile("/captures/[0-9a-f-]{36}$"))
    expect(page.locator("#progress progress")).to_be_visible()
    expect(page.get_by_role("heading", name="Verdict")).to_be_visible(timeout=60_000)  # comes by itself at the end

    page.locator(".io svg").scroll_into_view_if_needed()
    box = page.locator(".io svg").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"from=[\d.]+&to=[\d.]+"))
    expect(page.get_by_role("link", name="Show all")).to_be_visible()

    page.get_by_role("link", name=re.compile("^Flows")).first.click()
    page.get_by_role("searchbox").fill("192.168.7.10 :40000")
    page.get_by_role("button", name="Search").click()
    page.locator("tbody a").first.click()
    expect(page.locator("figure svg").first).to_be_visible()
    page.locator("details.more summary").first.click()
    page.locator("#packets tbody a").first.click()
    expect(page.get_by_text("Ethernet", exact=True)).to_be_visible()
    faults.check()
    context.close()


def test_files_are_dragged_onto_the_page(browser: Browser, web: Web) -> None:
    """Dropped from a file manager: the place is marked, progress shown, the report follows; not an empty file."""
    context, page, faults = visit(browser, DESK)
    base = log_in(context, web)
    page.goto(f"{base}/captures")
    dragged = page.evaluate_handle(
        """([text, size]) => {
            const octets = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
            const head = octets.slice(0, 24), frames = octets.slice(24);
            const found = new DataTransfer();
            const copies = Array.from({ length: Math.ceil(size / frames.length) }, () => frames);
            found.items.add(new File([head, ...copies], "dragged.pcap"));
            return found;
        }""",
        [base64.b64encode(CAPTURE).decode(), 30_000_000],
    )
    place = page.locator("#drop")
    # An upload over loopback is over in a moment; what is seen of it meanwhile is kept.
    page.evaluate(
        """() => {
            window.seen = [];
            const look = () => {
                for (const bar of document.querySelectorAll("#uploads progress")) window.seen.push(bar.value);
            };
            new MutationObserver(look).observe(document.getElementById("uploads"),
                { subtree: true, childList: true, characterData: true });
            window.addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify(window.seen)));
        }"""
    )
    place.dispatch_event("dragover", {"dataTransfer": dragged})
    expect(place).to_have_class(re.compile(r"\bover\b"))
    place.dispatch_event("drop", {"dataTransfer": dragged})
    page.wait_for_url(re.compile("/captures/[0-9a-f-]{36}$"), timeout=60_000)
    seen = [float(value) for value in page.evaluate("JSON.parse(sessionStorage.getItem('seen'))")]
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] > 0, "the bar moves"
    expect(page.get_by_role("heading", name="Verdict")).to_be_visible(timeout=60_000)

    page.goto(f"{base}/captures")
    empty = page.evaluate_handle(
        "() => { const found = new DataTransfer(); found.items.add(new File([], 'empty.pcap')); return found; }"
    )
    place.dispatch_event("drop", {"dataTransfer": empty})
    expect(page.locator("#uploads").get_by_text("the file is empty")).to_be_visible()
    expect(place).not_to_have_class(re.compile(r"\bover\b"))
    assert accessibility_faults(page) == []
    faults.check()
    context.close()


@pytest.mark.parametrize(("size", "dark"), [(PHONE, True), (DESK, False)])
def test_every_page_is_accessible_and_fits(browser: Browser, web: Web, size: tuple[int, int], dark: bool) -> None:
    """No serious fault for axe-core, no sideways scrolling, no violation of the policy, in both themes."""
    task = upload(web, CAPTURE, "%3Cb%3Ename.pcap")[2]["task_id"]
    finished(web, task)
    context, page, faults = visit(browser, size, dark=dark)
    base = log_in(context, web)
    faults.expected = ("404",)
    for path in ("", f"/{task}", f"/{task}/flows", f"/{task}/flows/C1", f"/{task}/packets/4", f"/{task}/tcp",
                 f"/{task}/hosts", f"/{task}/settings", f"/{task}/exports"):  # fmt: skip
        page.goto(f"{base}/captures{path}")
        for summary in page.locator("main details:not([open]) > summary").all()[:6]:
            summary.click()
        assert accessibility_faults(page) == [], path
        assert no_wider_than_the_screen(page), path
    faults.check()
    context.close()


def test_without_scripts_everything_is_there(browser: Browser, web: Web, tmp_path: Path) -> None:
    """The form uploads, the graph has two fields, findings open, downloads are downloads."""
    path = tmp_path / "plain.pcap"
    path.write_bytes(CAPTURE)
    context, page, faults = visit(browser, PHONE, script=False)
    base = log_in(context, web)
    page.goto(f"{base}/captures")
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_role("button", name="Upload and analyse").click()
    page.wait_for_url(re.compile("/captures/[0-9a-f-]{36}$"))
    finished(web, page.url.rpartition("/")[2])
    page.reload()
    expect(page.get_by_role("heading", name="Verdict")).to_be_visible()
    page.locator('input[name="from"]').first.fill("0.1")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("link", name="Show all")).to_be_visible()
    page.get_by_role("link", name="Exports").click()
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV, all tables").click()
    assert started.value.suggested_filename == "plain.csv.zip"
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("was deleted with its report")).to_be_visible()
    faults.check()
    context.close()
