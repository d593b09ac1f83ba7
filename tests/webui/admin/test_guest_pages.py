"""The look and the words of the guests' pages, as an administrator changes them."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.webui.admin.visitor import Visitor, admin, logged_in
from tests.webui.wire import run

SHEET = b".card { border: 3px dotted }"


async def upload(visitor: Visitor, name: str, data: bytes, csrf: str | None = None) -> tuple[int, str]:
    """Send the form of the page; returns status and text."""
    mark = "XyZ123"
    fields = {"csrf": visitor.csrf if csrf is None else csrf, "theme": name}
    pieces = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="t.zip"\r\n'
    pieces += [f"{head}Content-Type: application/zip\r\n\r\n".encode(), data, f"\r\n--{mark}--\r\n".encode()]
    answer = await visitor.ask("POST", "/pages/upload", b"".join(pieces), f"multipart/form-data; boundary={mark}")
    return answer.status, answer.text


def test_a_theme_is_uploaded_looked_at_used_and_taken_off(tmp_path: Path) -> None:
    """Back to the usual look with one button."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert (await upload(visitor, "Sea ", SHEET))[0] == 303
            assert fake.called("themes.store")[0]["theme"] == "sea"
            page = await visitor.get("/pages")
            assert "sea" in page.text
            assert (await visitor.post("/pages/theme", zone="guests", theme="sea")).status == 303
            assert fake.world.theme == "sea"
            assert "Back to the usual look" in (await visitor.get("/pages")).text
            assert (await visitor.post("/pages/theme", zone="guests", theme="")).status == 303
            assert fake.world.theme == ""
            assert (await visitor.post("/pages/remove", theme="sea")).status == 303
            assert fake.world.themes == {}

    run(story())


def test_a_preview_is_the_portals_page_in_a_sandbox(tmp_path: Path) -> None:
    """With the theme, with the operator's sentences, and with forms that go nowhere."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            logo = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
            sheet = base64.b64encode(SHEET + b" .mark { background: url(/static/logo.png) }").decode()
            fake.world.themes["sea"] = {"style.css": sheet, "logo.png": logo}
            fake.world.texts = {"": {"en": {"login_lead": "Ahoy!"}}}
            page = await visitor.get("/pages/preview?theme=sea&page=login")
            assert page.status == 200
            assert SHEET.decode() in page.text
            assert f"data:image/png;base64,{logo}" in page.text
            assert "Ahoy!" in page.text
            policy = page.header("content-security-policy")
            assert "sandbox" in policy
            assert "form-action 'none'" in policy
            assert "'self'; form-action" not in policy
            assert (await visitor.get("/pages/preview?page=nonsense")).status == 400
            assert (await visitor.get("/pages/preview?theme=gone")).status == 404
            fake.world.themes["bad"] = {"layout.html": base64.b64encode(b"\xff").decode()}
            assert (await visitor.get("/pages/preview?theme=bad")).status == 400

    run(story())


def test_a_theme_that_is_refused_says_everything_that_is_wrong(tmp_path: Path) -> None:
    """One line for each, and nothing was changed."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            status, text = await upload(visitor, "sea", b"bad")
            assert status == 400
            assert "layout.html: has &lt;script&gt;" in text
            assert "style.css: imports another sheet" in text
            assert (await upload(visitor, "sea", b""))[0] == 400

    run(story())


def test_an_upload_needs_the_token_and_the_role(tmp_path: Path) -> None:
    """The token is in the form, beside the file."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            logged_in(fake, visitor)
            assert (await upload(visitor, "sea", SHEET, "wrong"))[0] == 403
            logged_in(fake, visitor, "otto")
            assert (await upload(visitor, "sea", SHEET))[0] == 403
            assert not fake.called("themes.store")

    run(story())


def test_sentences_are_found_replaced_and_taken_back(tmp_path: Path) -> None:
    """One that would break a page is refused with the reason."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(1)
            logged_in(fake, visitor)
            page = await visitor.get("/pages/words?lang=de&search=nutzen")
            assert "Melden Sie sich an" in page.text
            sent = await visitor.post("/pages/words", lang="de", zone="", key="login_lead", text="Moin!")
            assert sent.status == 303
            assert fake.world.texts == {"": {"de": {"login_lead": "Moin!"}}}
            assert 'value="Moin!"' in (await visitor.get("/pages/words?lang=de")).text
            await visitor.post("/pages/words", lang="de", zone="", key="login_lead", text="")
            assert fake.world.texts == {"": {"de": {}}}
            refused = await visitor.post("/pages/words", lang="de", zone="", key="network", text="{name.x}")
            assert refused.status == 400
            assert "does not fit" in refused.text

    run(story())
