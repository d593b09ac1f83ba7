"""The first start: from the setup code to a summary, step by step, in four languages and without a script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Formatter
from urllib.parse import urlencode

import pytest

from tests.webui.admin.fake_admin import SETUP_CODE, FakeAdmin
from tests.webui.admin.visitor import Answer, Visitor, admin, field_of
from tests.webui.wire import run
from webui.admin.setup import Drafts

WORDS = "four words in a row"
CATALOGUES = Path(__file__).resolve().parents[3] / "webui" / "locale" / "setup"


async def send(visitor: Visitor, step: int, go: str = "next", **fields: str) -> Answer:
    """Send one step with the token of the form."""
    form = visitor.jar.get("__Host-postern-form", "")
    return await visitor.submit("/setup", form=form, step=str(step), go=go, **fields)


async def begin(visitor: Visitor) -> None:
    """Give the right code."""
    await visitor.get("/setup")
    answer = await send(visitor, 1, code=SETUP_CODE)
    assert (answer.status, answer.header("location")) == (303, "/setup?step=2")


async def to_the_summary(visitor: Visitor) -> None:
    """Every step but the last."""
    await begin(visitor)
    await send(visitor, 2, name="eve", password=WORDS, again=WORDS)
    await send(visitor, 3, timezone="Europe/Paris")
    await send(visitor, 4, zone_name="guests", zone_ssid="Café <b>")
    last = await send(visitor, 5, method="voucher")
    assert last.header("location") == "/setup?step=6"


def test_the_first_start_makes_the_first_administrator(tmp_path: Path) -> None:
    """Every page leads to the set-up until then, and never afterwards; the summary comes before anything is done."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (fake, visitor, _):
            assert (await visitor.get("/login")).header("location") == "/setup"
            await to_the_summary(visitor)
            page = await visitor.get("/setup?step=6")
            for word in (
                "eve",
                "Europe/Paris",
                "Café &lt;b&gt;",
                "A voucher that you print",
                "Nothing was changed yet",
            ):
                assert word in page.text
            assert WORDS not in page.text
            assert not fake.called("admin.setup")
            done = await send(visitor, 6)
            assert (done.status, done.header("location")) == (303, "/welcome")
            params = fake.called("admin.setup")[-1]
            assert params["zone"] == {"name": "guests", "ssid": "Café <b>", "methods": ["voucher"]}
            assert (params["name"], params["password"], params["timezone"]) == ("eve", WORDS, "Europe/Paris")
            assert "The gateway is yours" in (await visitor.get("/welcome")).text
            german = await visitor.get("/welcome?lang=de")
            assert 'lang="de"' in german.text
            assert "Das Gateway gehört Ihnen" in german.text
            assert (await visitor.get("/setup")).header("location") == "/login"
            assert (await send(visitor, 6)).header("location") == "/login"

    run(story())


def test_login_methods_stay_as_they_were_configured(tmp_path: Path) -> None:
    """They are chosen beforehand, and who goes on without a change changes nothing, nor their order."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (fake, visitor, _):
            await begin(visitor)
            await send(visitor, 2, name="eve", password=WORDS, again=WORDS)
            await send(visitor, 3, timezone="")
            await send(visitor, 4, zone_name="guests")
            page = (await visitor.get("/setup?step=5")).text
            checked = re.findall(r'name="method" value="(\w+)" checked', page)
            assert checked == ["click", "password"]
            form = [("form", visitor.jar["__Host-postern-form"]), ("step", "5"), ("go", "next")]
            body = urlencode([*form, *(("method", method) for method in checked)]).encode()
            await visitor.ask("POST", "/setup", body, "application/x-www-form-urlencoded")
            assert (await send(visitor, 6)).header("location") == "/welcome"
            assert "zone" not in fake.called("admin.setup")[-1]

    run(story())


def test_nothing_comes_before_the_code(tmp_path: Path) -> None:
    """A wrong one is told, later steps are not shown, and sending them leads back."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (fake, visitor, _):
            page = await visitor.get("/setup?step=6")
            assert 'name="code"' in page.text
            assert "eve" not in page.text
            wrong = await send(visitor, 1, code="nonsense")
            assert (wrong.status, "not the setup code" in wrong.text) == (401, True)
            assert (await send(visitor, 1)).status == 400
            skipped = await send(visitor, 2, name="eve", password=WORDS, again=WORDS)
            assert (skipped.status, 'name="code"' in skipped.text) == (400, True)
            fake.wait_s = 30
            waits = await send(visitor, 1, code=SETUP_CODE)
            assert (waits.status, "30 seconds" in waits.text) == (429, True)
            fake.wait_s = 0
            other = Visitor(visitor.port)
            await begin(visitor)
            await other.get("/setup")
            assert 'name="code"' in (await other.get("/setup?step=2")).text
            assert 'name="password"' in (await visitor.get("/setup?step=5")).text  # no further than was reached

    run(story())


def test_what_is_wrong_is_told_at_its_step_and_back_keeps_what_was_typed(tmp_path: Path) -> None:
    """The password is kept without being written into the page."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (fake, visitor, _):
            await begin(visitor)
            for fields, words in (
                ({"name": "", "password": WORDS, "again": WORDS}, "Type a name"),
                ({"name": "eve", "password": "short", "again": "short"}, "at least 12"),
                ({"name": "eve", "password": WORDS, "again": "other"}, "not the same"),
            ):
                answer = await send(visitor, 2, **fields)
                assert (answer.status, words in answer.text) == (400, True)
            await send(visitor, 2, name="eve", password=WORDS, again=WORDS)
            assert (await send(visitor, 3, go="back")).header("location") == "/setup?step=2"
            page = await visitor.get("/setup?step=2")
            assert 'value="eve"' in page.text
            assert "Leave both fields empty to keep it" in page.text
            assert WORDS not in page.text
            assert (await send(visitor, 2, name="eva")).header("location") == "/setup?step=3"
            await send(visitor, 3)
            await send(visitor, 4)
            await send(visitor, 5)
            await send(visitor, 6)
            assert fake.called("admin.setup")[-1]["password"] == WORDS
            assert "zone" not in fake.called("admin.setup")[-1]

    run(story())


@pytest.mark.parametrize(
    ("accepts", "code", "word"),
    [
        ("de-CH,de;q=0.9", "de", "Einrichtungscode"),
        ("fr", "fr", "Code de configuration"),
        ("es-MX", "es", "Código de configuración"),
        ("ja", "en", "Setup code"),
    ],
)
def test_the_language_is_that_of_the_browser(tmp_path: Path, accepts: str, code: str, word: str) -> None:
    """In the page, and said to screen readers; what is wrong is told in it, too."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (_, visitor, _):
            page = await visitor.get("/setup", accept_language=accepts)
            assert f'<html lang="{code}"' in page.text
            assert word in page.text
            wrong = await visitor.submit(
                "/setup", {"Accept-Language": accepts}, form=field_of(page, "form"), step="1", code="nonsense"
            )
            said = json.loads((CATALOGUES / f"{code}.json").read_text("utf-8"))["code_wrong"]
            assert said.replace("'", "&#039;") in wrong.text

    run(story())


def test_another_language_can_be_chosen_and_stays(tmp_path: Path) -> None:
    """By a link; a language that there is not changes nothing."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (_, visitor, _):
            assert "Einrichtungscode" in (await visitor.get("/setup?lang=de")).text
            assert "Einrichtungscode" in (await visitor.get("/setup", accept_language="fr")).text
            assert "Setup code" in (await visitor.get("/setup?lang=en")).text
            assert "Setup code" in (await visitor.get("/setup?lang=../../etc")).text

    run(story())


def test_every_catalogue_says_everything() -> None:
    """The same keys with the same placeholders."""
    trees = {path.stem: json.loads(path.read_text("utf-8")) for path in CATALOGUES.glob("*.json")}
    assert set(trees) == {"en", "fr", "de", "es"}

    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text)} - {None}

    for code, tree in trees.items():
        assert set(tree) == set(trees["en"]), code
        for key, text in tree.items():
            assert text.strip(), (code, key)
            assert places(text) == places(trees["en"][key]), (code, key)


def test_forms_from_elsewhere_are_not_taken(tmp_path: Path) -> None:
    """Without the cookie of the form, or with another one."""

    async def story() -> None:
        async with admin(tmp_path, FakeAdmin(setup_needed=True)) as (fake, visitor, _):
            assert (await visitor.submit("/setup", form="", step="1", code=SETUP_CODE)).status == 400
            await visitor.get("/setup")
            assert (await visitor.submit("/setup", form="guessed", step="1", code=SETUP_CODE)).status == 400
            own = visitor.jar["__Host-postern-form"]
            foreign = {"Sec-Fetch-Site": "cross-site"}
            assert (await visitor.submit("/setup", foreign, form=own, step="1", code=SETUP_CODE)).status == 400
            assert not fake.called("admin.setup_check")

    run(story())


def test_what_waits_is_bounded_and_ends() -> None:
    """Twenty at once, an hour each; what is known is gone on with."""
    now = [0.0]
    drafts = Drafts(lambda: now[0])
    first = drafts.begin("0", "code")
    assert drafts.begin("0", "other") is first
    for number in range(1, 21):
        drafts.begin(str(number), "code")
    assert drafts.get("0") is None
    assert drafts.get("20") is not None
    now[0] = 3601.0
    assert drafts.get("20") is None
