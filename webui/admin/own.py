"""What concerns the one who looks: colours of the pages, logout, and the summary after the first set-up."""

from __future__ import annotations

from webui.admin.setup import language_of
from webui.admin.site import SESSION_COOKIE, THEME_COOKIE, THEMES, Page, Route, cookie, own_path
from webui.messages import Response

_YEAR_S = 365 * 86400


def routes() -> list[Route]:
    """The routes of this module."""
    return [
        Route("POST", "/logout", log_out),
        Route("POST", "/colours", colours),
        Route("GET", "/welcome", welcome, "administrator"),
    ]


async def log_out(page: Page) -> Response:
    """End the session."""
    await page.log_out()
    page.set_cookie(cookie(SESSION_COOKIE, "", max_age_s=0))
    return page.redirect("/login")


async def colours(page: Page) -> Response:
    """Keep how the pages look, in this browser."""
    page.set_cookie(cookie(THEME_COOKIE, page.form.choice("theme", THEMES, "auto"), max_age_s=_YEAR_S))
    return page.redirect(own_path(page.form.text("back", "/")))


async def welcome(page: Page) -> Response:
    """What was set up, and where to go on, in the language of the set-up."""
    status = await page.call("status")
    language = language_of(page.request)
    return page.render(
        "welcome",
        title=language.say("welcome_ready"),
        said_in=language.code,
        direction=language.direction,
        say=language.say,
        zones=status.get("zones", []),
        warnings=status.get("warnings", []),
    )
