"""The administration in a real browser, with the real daemon, a real guest, and nothing faked."""

from __future__ import annotations

import base64
import hmac
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.administration import NAME, PASSWORD, Administration
from tests.browser.chromium import PHONE, accessibility_faults, chromium, visit
from tests.netns.harness import Guest, Lab, wait_for
from tests.netns.hotspot import Hotspot

pytestmark = [pytest.mark.root, pytest.mark.slow]

USER, SECRET = "alice", "wonderland"


@dataclass
class Stage:
    """What the stories of this file play on; the first of them makes the administrator."""

    hotspot: Hotspot
    administration: Administration
    guest: Guest
    browser: Browser


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One hotspot with its administration on loopback, a guest with an address, and a browser."""
    with Lab("adminweb") as lab:
        lab.start_internet()
        zone = "\tlist method 'password'\n\tlist method 'voucher'\n"
        # The shortest time in which a change that may cut the administrator off can be confirmed.
        sections = "config admin\n\toption confirm_time '10'\n"
        with (
            Hotspot(lab, zone_options=zone, sections=sections) as hotspot,
            Administration(hotspot) as administration,
            chromium() as browser,
        ):
            hotspot.add_user(USER, SECRET, "--session-time", "1h")
            hotspot.lease(lab.guest)
            stage = Stage(hotspot, administration, lab.guest, browser)
            first_start(stage)  # before every story, whatever their order
            yield stage


def log_in(page: Page, stage: Stage) -> None:
    """Log in by the form."""
    page.goto(stage.administration.origin)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()


def first_start(stage: Stage) -> None:
    """Go through the first start: a wrong code is refused with a sentence, the right one ends with a summary."""
    context, page, faults = visit(stage.browser, PHONE)
    faults.expected = ("400", "401", "429")  # the browser reports the status of the wrong attempt
    try:
        page.goto(stage.administration.origin)
        assert page.url.endswith("/setup")
        assert accessibility_faults(page) == []
        fill_in(page, "AAAA-BBBB-CCCC-DDDD")
        expect(page.get_by_role("alert")).to_be_visible()
        assert accessibility_faults(page) == []
        fill_in(page, stage.administration.setup_code())
        expect(page.get_by_role("heading", name="The gateway is yours")).to_be_visible()
        expect(page.get_by_text("Administrator", exact=True)).to_be_visible()
        assert accessibility_faults(page) == []
        faults.check()
    finally:
        context.close()


def fill_in(page: Page, code: str) -> None:
    """Go through the steps of the set-up as far as the code leads."""
    page.get_by_label("Setup code").fill(code)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("alert").or_(page.get_by_label("Your name")).first.wait_for()
    if page.get_by_role("alert").is_visible():
        return
    page.get_by_label("Your name").fill(NAME)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same password again").fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    for heading in ("Time", "The guest network"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        page.get_by_role("button", name="Continue").click()
    expect(page.get_by_label("A user name and password")).to_be_checked()  # as it is configured
    expect(page.get_by_label("One click, after your terms")).not_to_be_checked()
    page.get_by_label("A voucher that you print").check()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Summary")).to_be_visible()
    assert accessibility_faults(page) == []
    page.get_by_role("button", name="Set up").click()


def online(stage: Stage) -> None:
    """Have the guest log in."""
    answer = stage.hotspot.log_in(stage.guest, USER, SECRET)
    assert stage.hotspot.state(stage.guest) == "online", answer.body


def test_after_the_first_start_nobody_is_asked_to_set_up_again(stage: Stage) -> None:
    """The set-up page leads to the login, and what was chosen is in the configuration."""
    context, page, faults = visit(stage.browser, PHONE)
    try:
        page.goto(f"{stage.administration.origin}/setup")
        assert page.url.endswith("/login")
        text = stage.hotspot.config_path.read_text(encoding="utf-8")
        assert "voucher" in text
        faults.check()
    finally:
        context.close()


def test_a_client_that_is_kicked_is_seen_to_go_without_reload(stage: Stage) -> None:
    """The row of the table changes by itself when the session ends elsewhere, and when it begins."""
    online(stage)
    context, page, faults = visit(stage.browser)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/clients")
        row = page.locator(f"#client-guest-{str(stage.guest.mac).replace(':', '')}")
        expect(row.get_by_text("online", exact=True)).to_be_visible()
        expect(page.locator("#live-state.on")).to_be_visible()
        page.evaluate("window.notReloaded = true")
        stage.hotspot.postern("sessions", "kick", str(stage.guest.mac))
        expect(row.get_by_text("held", exact=True)).to_be_visible(timeout=5_000)
        online(stage)
        expect(row.get_by_text("online", exact=True)).to_be_visible(timeout=5_000)
        assert page.evaluate("window.notReloaded") is True
        assert accessibility_faults(page) == []
        row.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("Logged out.")).to_be_visible()
        assert stage.hotspot.state(stage.guest) == "held"
        faults.check()
    finally:
        context.close()


def test_limits_are_changed_while_the_guest_is_online(stage: Stage) -> None:
    """What is typed holds at once in the daemon, and the page shows it."""
    online(stage)
    context, page, faults = visit(stage.browser)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/clients/{stage.guest.mac}")
        page.get_by_text("Change limits").click()
        page.get_by_label("Download speed", exact=True).fill("2.5")
        page.get_by_role("button", name="Set limits").click()
        expect(page.get_by_text("The new limits hold from now on.")).to_be_visible()
        expect(page.locator("#facts").get_by_text("2.5 Mbit/s")).to_be_visible()
        assert stage.hotspot.session(stage.guest)["limits"]["download_bps"] == 2_500_000
        before = stage.hotspot.session(stage.guest)["seconds_left"]
        page.get_by_label("More time", exact=True).fill("45")
        page.get_by_role("button", name="Extend").click()
        expect(page.get_by_text("The session was made longer.")).to_be_visible()
        after = stage.hotspot.session(stage.guest)["seconds_left"]
        # Without a time limit there is nothing to extend, and the daemon says so.
        assert (after is None) == (before is None)
        assert accessibility_faults(page) == []
        faults.check()
    finally:
        context.close()


PAGES = (
    *("/", "/clients", "/clients/blocked", "/vouchers", "/vouchers/new", "/users", "/users/new", "/devices"),
    *("/config", "/config/section/zone?name=guest", "/config/text", "/config/history", "/config/backup"),
    *("/health", "/log", "/account", "/accounts", "/accounts/audit", "/welcome", "/pages", "/pages/words", "/system"),
)


def test_every_page_is_accessible_fits_a_phone_and_breaks_no_policy(stage: Stage) -> None:
    """axe finds nothing serious in either theme, nothing wider than 360 px, no console error, no request elsewhere."""
    context, page, faults = visit(stage.browser, PHONE)
    try:
        log_in(page, stage)
        for path in PAGES:
            answer = page.goto(f"{stage.administration.origin}{path}")
            assert answer is not None
            assert answer.status == 200, f"{path}: {answer.status} {page.inner_text('main')[:300]}"
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= PHONE[0], f"{path} is {wide} px wide"
            page.emulate_media(color_scheme="light")
            assert accessibility_faults(page) == [], path
            page.emulate_media(color_scheme="dark")
            assert accessibility_faults(page, only="color-contrast") == [], f"{path} in the dark"
        faults.check()
    finally:
        context.close()


def test_pages_work_without_scripts(stage: Stage) -> None:
    """A user is made and vouchers are printed with JavaScript off."""
    context, page, faults = visit(stage.browser, script=False)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/vouchers/new")
        page.get_by_label("How many").fill("6")
        page.get_by_role("button", name="Make vouchers").click()
        expect(page.get_by_text("6 vouchers are made.")).to_be_visible()
        page.get_by_role("link", name="Print").click()
        expect(page.locator(".voucher svg.qr")).to_have_count(6)
        page.goto(f"{stage.administration.origin}/users/new")
        page.get_by_label("User name").fill("walter")
        page.get_by_label("Password").fill("some-password")
        page.get_by_role("button", name="Make user").click()
        expect(page.get_by_text("walter can log in now.")).to_be_visible()
        faults.check()
    finally:
        context.close()


def test_an_option_is_changed_by_its_form_after_a_look_at_the_difference(stage: Stage) -> None:
    """The file and the portal have the new value; the history says who; going back puts the old one there."""
    context, page, faults = visit(stage.browser)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/config/section/zone?name=guest")
        page.get_by_label("Title", exact=True).fill("Hotel <Miramar>")
        page.get_by_role("button", name="Review the change").click()
        expect(page.get_by_role("heading", name="Review the change")).to_be_visible()
        expect(page.locator(".diff .add").get_by_text("Hotel <Miramar>")).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("Applied.")).to_be_visible()
        assert "Hotel <Miramar>" in stage.hotspot.config_path.read_text(encoding="utf-8")
        page.goto(f"{stage.administration.origin}/config/history")
        page.locator("tbody a").first.click()
        expect(page.get_by_text(f"By {NAME}")).to_be_visible()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Go back to before this change").click()
        expect(page.get_by_role("heading", name="Changes")).to_be_visible()
        assert "Hotel <Miramar>" not in stage.hotspot.config_path.read_text(encoding="utf-8")
        faults.check()
    finally:
        context.close()


def change_text(page: Page, stage: Stage, old: str, new: str) -> None:
    """Change a piece of the configuration's text, up to the page with the difference."""
    page.goto(f"{stage.administration.origin}/config/text")
    text = page.get_by_label("The file")
    before = text.input_value()
    assert old in before
    text.fill(before.replace(old, new, 1))
    page.get_by_role("button", name="Review the change").click()
    expect(page.get_by_role("heading", name="Review the change")).to_be_visible()


def test_a_change_that_could_cut_off_stays_only_when_confirmed(stage: Stage) -> None:
    """The page counts down; confirmed in time the change stays, unconfirmed it is taken back and the page says so."""
    context, page, faults = visit(stage.browser, PHONE)
    try:
        log_in(page, stage)
        change_text(page, stage, "option confirm_time '10'", "option confirm_time '10'\n\toption port '8444'")
        expect(page.get_by_text("cut you off")).to_be_visible()
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_role("heading", name="Keep the change?")).to_be_visible()
        expect(page.locator("[data-countdown]")).to_have_text(re.compile(r"in \d+ seconds"))
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Keep it").click()
        expect(page.get_by_text("The change stays.")).to_be_visible()
        assert "8444" in stage.hotspot.config_path.read_text(encoding="utf-8")

        change_text(page, stage, "option port '8444'", "option port '8445'")
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_role("heading", name="Keep the change?")).to_be_visible()
        assert "8445" in stage.hotspot.config_path.read_text(encoding="utf-8")
        expect(page.get_by_text("reverted")).to_be_visible(timeout=30_000)  # the page looks again by itself
        text = stage.hotspot.config_path.read_text(encoding="utf-8")
        assert "8445" not in text
        assert "8444" in text
        change_text(page, stage, "\n\toption port '8444'", "")
        page.get_by_role("button", name="Apply").click()
        page.get_by_role("button", name="Keep it").click()
        expect(page.get_by_text("The change stays.")).to_be_visible()
        faults.check()
    finally:
        context.close()


def test_of_two_who_change_the_configuration_the_second_is_told(stage: Stage) -> None:
    """What the first applied is not overwritten unseen; looked at anew, the second change is possible."""
    first, one, faults_of_one = visit(stage.browser)
    second, other, faults_of_other = visit(stage.browser)
    faults_of_other.expected = ("409",)
    try:
        for page in (one, other):
            log_in(page, stage)
        change_text(other, stage, "list method 'password'", "list method 'password'\n\toption title 'Of the second'")
        change_text(one, stage, "list method 'password'", "list method 'password'\n\toption title 'Of the first'")
        one.get_by_role("button", name="Apply").click()
        expect(one.get_by_text("Applied.")).to_be_visible()
        other.get_by_role("button", name="Apply").click()
        expect(other.get_by_text("changed meanwhile")).to_be_visible()
        text = stage.hotspot.config_path.read_text(encoding="utf-8")
        assert "Of the first" in text
        assert "Of the second" not in text
        change_text(other, stage, "Of the first", "Of the second")
        other.get_by_role("button", name="Apply").click()
        expect(other.get_by_text("Applied.")).to_be_visible()
        change_text(one, stage, "\n\toption title 'Of the second'", "")
        one.get_by_role("button", name="Apply").click()
        expect(one.get_by_text("Applied.")).to_be_visible()
        faults_of_one.check()
        faults_of_other.check()
    finally:
        first.close()
        second.close()


def test_a_client_is_blocked_and_unblocked_by_the_pages(stage: Stage) -> None:
    """It is gone from the table and gets nothing, not even the portal; unblocked it is led to the login again."""
    online(stage)
    context, page, faults = visit(stage.browser, PHONE)
    page.on("dialog", lambda dialog: dialog.accept())
    portal = f"{stage.hotspot.portal}/"
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/clients/{stage.guest.mac}")
        page.get_by_role("button", name="Block").click()
        page.goto(f"{stage.administration.origin}/clients/blocked")
        expect(page.get_by_role("row").filter(has_text=str(stage.guest.mac))).to_be_visible()
        assert stage.hotspot.curl(stage.guest, portal, limit_s=2).status == 0
        assert stage.hotspot.state(stage.guest) != "online"
        page.goto(f"{stage.administration.origin}/clients?state=online")
        expect(page.get_by_text("No client fits.")).to_be_visible()
        page.goto(f"{stage.administration.origin}/clients/blocked")
        page.get_by_role("button", name="Unblock").click()
        expect(page.get_by_text("No device is blocked.")).to_be_visible()
        assert wait_for(lambda: stage.hotspot.curl(stage.guest, portal, limit_s=2).status == 200, timeout_s=8)
        faults.check()
    finally:
        context.close()


def test_a_client_is_kicked_without_scripts(stage: Stage) -> None:
    """The table has a form in each row."""
    online(stage)
    context, page, faults = visit(stage.browser, PHONE, script=False)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/clients")
        page.get_by_role("button", name="Log out").filter(visible=True).last.click()
        expect(page.get_by_text("Logged out.")).to_be_visible()
        assert stage.hotspot.state(stage.guest) == "held"
        faults.check()
    finally:
        context.close()


def test_a_backup_is_saved_and_put_back(stage: Stage, tmp_path: Path) -> None:
    """A wrong passphrase changes nothing; the right one shows what is in the file, and brings back what was."""
    context, page, faults = visit(stage.browser, PHONE)
    faults.expected = ("400",)
    passphrase, kept = "a backup of four words", tmp_path / "kept.backup"
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/config/backup")
        page.get_by_label("Passphrase", exact=True).fill(passphrase)
        page.get_by_label("Again").fill(passphrase)
        with page.expect_download() as started:
            page.get_by_role("button", name="Save a backup").click()
        started.value.save_as(kept)
        assert kept.stat().st_size > 1000
        assert PASSWORD.encode() not in kept.read_bytes()
        stage.hotspot.add_user("late", "some-password")
        change_text(page, stage, "list method 'password'", "list method 'password'\n\toption title 'Of a bad day'")
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("Applied.")).to_be_visible()

        look_at_backup(page, stage, kept, "a wrong passphrase")
        expect(page.get_by_role("alert")).to_be_visible()
        assert "Of a bad day" in stage.hotspot.config_path.read_text(encoding="utf-8")
        look_at_backup(page, stage, kept, passphrase)
        expect(page.get_by_role("heading", name="Put this backup back?")).to_be_visible()
        expect(page.get_by_text(NAME, exact=True).last).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_label("Put it in place").check()
        page.get_by_role("button", name="Restore").click()
        expect(page.get_by_role("heading", name="The backup is put back")).to_be_visible()
        config = stage.hotspot.config_path
        assert wait_for(lambda: "Of a bad day" not in config.read_text(encoding="utf-8"), timeout_s=20)
        assert wait_for(stage.hotspot.is_up, timeout_s=20)
        stage.hotspot.wait_for_portal()
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/users")
        expect(page.get_by_role("link", name=USER)).to_be_visible()
        expect(page.get_by_text("late", exact=True)).to_have_count(0)
        faults.check()
    finally:
        context.close()


def look_at_backup(page: Page, stage: Stage, path: Path, passphrase: str) -> None:
    """Choose the file of a backup, and open it."""
    page.goto(f"{stage.administration.origin}/config/backup")
    page.get_by_label("Its passphrase").fill(passphrase)
    page.get_by_label("The backup").set_input_files(path)
    page.get_by_role("button", name="Look at it").click()


def test_a_second_factor_is_asked_for_once_it_is_set_up(stage: Stage) -> None:
    """The secret of the page makes the codes; afterwards a password alone does not do."""
    context, page, faults = visit(stage.browser, PHONE)
    faults.expected = ("401",)
    try:
        log_in(page, stage)
        page.goto(f"{stage.administration.origin}/account")
        page.get_by_role("button", name="Set up").click()
        secret = page.locator("p.secret").inner_text()
        expect(page.locator(".qr svg")).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_label("The six digits").fill(code_of(secret))
        page.get_by_role("button", name="Switch on").click()
        expect(page.get_by_role("heading", name="The second factor is on")).to_be_visible()
        recovery = page.locator("li.secret").first.inner_text()
        page.locator(".who summary").click()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Name").fill(NAME)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
        assert accessibility_faults(page) == []
        page.get_by_label("Code").fill("000000")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Code").fill(recovery)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        page.goto(f"{stage.administration.origin}/account")
        page.get_by_label("Password, to switch it off").fill(PASSWORD)
        page.get_by_role("button", name="Switch off").click()
        expect(page.get_by_text("The second factor is off.")).to_be_visible()
        faults.check()
    finally:
        context.close()


def code_of(secret: str) -> str:
    """What an authenticator shows now (RFC 6238)."""
    key = base64.b32decode(secret.replace(" ", "") + "=" * (-len(secret.replace(" ", "")) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), "sha1")
    offset = digest[-1] & 15
    return f"{(struct.unpack_from('>I', digest, offset)[0] & 0x7FFFFFFF) % 1_000_000:06}"
