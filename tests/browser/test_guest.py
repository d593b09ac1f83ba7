"""Guests in a real browser on their own side of the gate: redirect, login by every method, status, logout.

The browser runs in the guest's namespace, with the real daemon, portal and kernel between it and the Internet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import PHONE, Faults, chromium, visit
from tests.netns.harness import WEB4, Guest, Lab
from tests.netns.hotspot import Hotspot

pytestmark = [pytest.mark.root, pytest.mark.slow]

USER, SECRET = "alice", "wonderland"
ZONE = (
    "\tlist method 'voucher'\n\tlist method 'password'\n\tlist method 'click'\n"
    "\toption terms 'Be kind to each other.'\n\toption ssid 'Miramar Guests'\n"
)
WANTED = "http://example.com/some/page?with=a&query"


@dataclass
class Stage:
    """A hotspot, a guest with an address, and a browser that is on the guest's device."""

    hotspot: Hotspot
    guest: Guest
    browser: Browser


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the whole file; every story begins and ends logged out."""
    with Lab("browserguest") as lab:
        lab.start_internet()
        with Hotspot(lab, zone_options=ZONE) as hotspot:
            hotspot.add_user(USER, SECRET, "--session-time", "1h")
            hotspot.lease(lab.guest)
            starter = tmp_path_factory.mktemp("browser") / "chromium"
            starter.write_text(f'#!/bin/sh\nexec ip netns exec {lab.guest.netns} chromium "$@"\n')
            starter.chmod(0o755)
            with chromium(executable=str(starter)) as browser:
                yield Stage(hotspot, lab.guest, browser)


def send_to_portal(page: Page, faults: Faults, stage: Stage) -> None:
    """Ask for any page, and be led to the login, which knows what was asked for."""
    faults.elsewhere = ("http://example.com", f"http://{WEB4}")
    faults.origin = stage.hotspot.portal
    page.goto(WANTED)
    assert page.url.startswith(f"{stage.hotspot.portal}/")
    assert page.locator("form").count() == 3


def is_online(page: Page, stage: Stage) -> None:
    """The status page says so, the kernel agrees, and what was asked for comes."""
    expect(page.get_by_role("heading", name="You are online")).to_be_visible()
    assert urlsplit(page.url).path == "/status"
    assert stage.hotspot.state(stage.guest) == "online"
    expect(page.get_by_role("link", name="Continue to example.com")).to_be_visible()
    page.goto(f"http://{WEB4}/")
    expect(page.get_by_text("the internet")).to_be_visible()


def log_out(page: Page, stage: Stage) -> None:
    """By the button of the status page; the next page is the login again."""
    page.goto(f"{stage.hotspot.portal}/")
    expect(page.get_by_role("heading", name="You are online")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
    assert stage.hotspot.state(stage.guest) == "held"
    page.goto(WANTED)
    assert page.url.startswith(f"{stage.hotspot.portal}/")


@pytest.mark.parametrize("script", [True, False], ids=["scripts", "no-scripts"])
def test_a_guest_logs_in_by_every_method(stage: Stage, script: bool) -> None:
    """By voucher as people type it, by password after a wrong one, by click after the terms; always by the redirect."""
    code = stage.hotspot.postern("vouchers", "create", "1").stdout.strip()
    context, page, faults = visit(stage.browser, PHONE, script=script)
    try:
        send_to_portal(page, faults, stage)
        page.get_by_label("Voucher code").fill(f" {code.replace('-', ' ').upper()} ")
        page.get_by_role("button", name="Use the voucher").click()
        is_online(page, stage)
        log_out(page, stage)

        send_to_portal(page, faults, stage)
        page.locator("#username").fill(USER)
        page.locator("#password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not right")
        assert page.locator("#username").input_value() == USER
        page.locator("#password").fill(SECRET)
        page.get_by_role("button", name="Log in").click()
        is_online(page, stage)
        log_out(page, stage)

        send_to_portal(page, faults, stage)
        page.get_by_text("Read the terms of use").click()
        expect(page.get_by_text("Be kind to each other.")).to_be_visible()
        page.get_by_label("I accept the terms of use").check()
        page.get_by_role("button", name="Connect").click()
        is_online(page, stage)
        log_out(page, stage)
        assert context.cookies() == []
        faults.check()
    finally:
        context.close()


def test_a_blocked_guest_meets_nothing_until_unblocked(stage: Stage) -> None:
    """Not even the login page; once unblocked, the next page asked for leads there again."""
    context, page, faults = visit(stage.browser, PHONE)
    try:
        send_to_portal(page, faults, stage)
        stage.hotspot.call("clients.block", mac=str(stage.guest.mac), note="torrents")
        try:
            page.set_default_navigation_timeout(2_500)
            with pytest.raises(Exception, match=r"Timeout|ERR_"):
                page.goto(f"{stage.hotspot.portal}/")
        finally:
            stage.hotspot.call("clients.unblock", mac=str(stage.guest.mac))
        page.set_default_navigation_timeout(20_000)
        page.goto(WANTED)
        assert page.url.startswith(f"{stage.hotspot.portal}/")
    finally:
        context.close()
