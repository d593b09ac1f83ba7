"""The portal's pages as responses: values in, html out. Nothing is asked and nothing decided about a client here.

One file each, no script, no cookie, nothing from elsewhere: the sheet in which phones show them allows little else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from gateway.values import value_class
from webui.messages import Response
from webui.portal.language import Language, Languages
from webui.portal.model import Client, LoginMethod, LoginReply, Outcome, Zone
from webui.portal.redirect import host_of, way_on
from webui.portal.theme import Markup, Theme, joined

_MOMENT_S: Final = 3
_MAX_INLINE_TERMS: Final = 8000  # characters; longer ones get a page of their own
_MAX_SHOWN_MESSAGE: Final = 500
_NOTHING: Final = Markup("")
_LEADS: Final[dict[tuple[LoginMethod, ...], str]] = {
    (LoginMethod.CLICK,): "login_lead_click",
    (LoginMethod.VOUCHER,): "login_lead_voucher",
}
# What is said of a voucher or an account that is right and lets nobody in, and then what to do.
_REASONS: Final = {
    "expired": ("error_expired_voucher", "error_new_voucher"),
    "used_up": ("error_used_up", "error_new_voucher"),
    "revoked": ("error_revoked", "error_new_voucher"),
    "elsewhere": ("error_elsewhere", "error_elsewhere_advice"),
}
_ACCOUNT_REASONS: Final = frozenset({"disabled", "expired", "revoked", "used_up"})
_MAX_KEPT_PAGES: Final = 64  # of zones and languages, with and without an address
# What a composed page has where a visit's own values go. NUL is in no configuration, so no text can look like these.
_MARKS: Final = {name: Markup(f"\0{name}\0") for name in ("token", "alert", "username", "url", "code")}
_MARK: Final = re.compile("(?:\0|%00)([a-z]+)(\0|%00)")  # percent-encoded within a link


@value_class
class Visit:
    """Who looks at a page: the zone, the language, and the address they were on their way to."""

    zone: Zone
    language: Language
    url: str = ""  # as it was carried; pages offer it only through `way_on`
    code: str = ""  # of a voucher, from a printed link or as it was typed

    def query(self, language: Language | None = None) -> str:
        """The parameters that keep language and address over a link."""
        lang = (language or self.language).code
        query = f"?lang={lang}" + (f"&u={quote(self.url, safe='')}" if self.url else "")
        return query + (f"&code={quote(self.code, safe='')}" if self.code else "")


class Pages:
    """Every page of the portal, in one theme."""

    def __init__(self, theme: Theme, languages: Languages) -> None:
        self.theme = theme
        self.languages = languages
        self._login_pages: dict[tuple[Zone, str, bool, bool], _Composed] = {}

    def login(
        self,
        visit: Visit,
        token: str,
        *,
        alert: Markup = _NOTHING,
        username: str = "",
        status: int = 200,
        retry_after_s: int = 0,
    ) -> Response:
        """The login page with a form for each method of the zone, in the operator's order.

        It is what guests ask for most, and the same for all but for four values: composed once per zone and language.
        """
        key = (visit.zone, visit.language.code, bool(visit.url), bool(visit.code))
        composed = self._login_pages.get(key)
        if composed is None:
            if len(self._login_pages) >= _MAX_KEPT_PAGES:  # those of configurations that are no more
                self._login_pages.clear()
            url, code = _MARKS["url"] if visit.url else "", _MARKS["code"] if visit.code else ""
            marked = Visit(visit.zone, visit.language, url, code)
            composed = self._login_pages[key] = _Composed(self._compose_login(marked))
        values = {"token": token, "alert": alert, "username": username, "url": visit.url, "code": visit.code}
        return self._response(visit, composed.fill(values), status, retry_after_s)

    def _compose_login(self, visit: Visit) -> Markup:
        """The login page with marks for what differs from visit to visit."""
        say, zone, render = visit.language.say, visit.zone, self.theme.render
        forms: list[Markup] = []
        for method in zone.methods:
            if forms:
                forms.append(render("or", text=say("or")))
            common = {"token": _MARKS["token"], "url": visit.url, "lang": visit.language.code}
            if method is LoginMethod.PASSWORD:
                forms.append(
                    render(
                        "password",
                        **common,
                        form_label=say("method_password"),
                        username=_MARKS["username"],
                        username_label=say("username"),
                        password_label=say("password"),
                        implied=render("implied", text=say("terms_implied")) if zone.terms else _NOTHING,
                        button=say("login_button"),
                        note=say("http_note"),
                    )
                )
            elif method is LoginMethod.VOUCHER:
                forms.append(
                    render(
                        "voucher",
                        **common,
                        form_label=say("method_voucher"),
                        code=visit.code,
                        code_label=say("code"),
                        code_hint=say("code_hint"),
                        implied=render("implied", text=say("terms_implied")) if zone.terms else _NOTHING,
                        button=say("voucher_button"),
                    )
                )
            else:
                forms.append(
                    render(
                        "click",
                        **common,
                        form_label=say("method_click"),
                        accept=render("accept", text=say("terms_accept")) if zone.terms else _NOTHING,
                        button=say("click_button"),
                    )
                )
        lead = _LEADS.get(zone.methods, "login_lead")
        content = render(
            "login",
            heading=zone.title,
            lead=say(lead),
            alert=_MARKS["alert"],
            terms=self._terms(visit),
            methods=joined(forms),
        )
        return self._layout(visit, f"{say('login_title')} – {zone.title}", content)

    def _terms(self, visit: Visit) -> Markup:
        terms, say = visit.zone.terms, visit.language.say
        if not terms:
            return _NOTHING
        if len(terms) > _MAX_INLINE_TERMS:
            return self.theme.render("terms_link", label=say("terms_read"), lang=visit.language.code)
        return self.theme.render("terms", label=say("terms_read"), text=terms)

    def alert(self, language: Language, text: str, *details: str) -> Markup:
        """What went wrong, for the top of the login page."""
        pieces = [self.theme.render("detail", text=detail) for detail in details if detail]
        return self.theme.render("alert", text=language.say(text), details=joined(pieces))

    def refused_login(self, language: Language, method: LoginMethod, reply: LoginReply) -> Markup:
        """Why a login failed and what to do, in the guest's words; the server's own message is shown as it is."""
        say = language.say
        message = reply.message.strip()[:_MAX_SHOWN_MESSAGE]
        said = say("error_server_says", message=message) if message else ""
        wait = language.duration(reply.wait_s)
        voucher = method is LoginMethod.VOUCHER
        match reply.outcome:
            case Outcome.REJECT:
                next_wait = say("error_wait_next", wait=wait) if reply.wait_s else ""
                if voucher and reply.reason in _REASONS:
                    text, advice = _REASONS[reply.reason]
                    return self.alert(language, text, say(advice))
                if voucher:
                    return self.alert(language, "error_code", next_wait or say("error_code_advice"))
                if reply.reason in _ACCOUNT_REASONS:
                    return self.alert(language, "error_account", say("error_forbidden_advice"))
                return self.alert(language, "error_reject", said, next_wait)
            case Outcome.THROTTLED:
                return self.theme.render("alert", text=say("error_throttled", wait=wait), details=_NOTHING)
            case Outcome.LIMIT:
                return self.alert(
                    language, "error_limit_voucher" if voucher else "error_limit", say("error_limit_advice")
                )
            case Outcome.TIMEOUT:
                return self.alert(language, "error_timeout", say("error_timeout_advice"))
            case Outcome.BUSY:
                return self.alert(language, "error_busy")
            case Outcome.FORBIDDEN:
                return self.alert(language, "error_forbidden", said, say("error_forbidden_advice"))
            case _:
                return self.alert(language, "error_gate", said, say("error_gate_advice"))

    def status(self, visit: Visit, client: Client, token: str, address: str, now: float) -> Response:
        """What the session has used and has left; `now` on the clock of `online_since_s`."""
        say, render, language = visit.language.say, self.theme.render, visit.language
        elapsed_s = max(0.0, now - client.online_since_s)
        rows: list[Markup] = []
        if client.method == LoginMethod.VOUCHER.value:
            number = client.username.removeprefix("voucher-")
            rows.append(render("row", label=say("status_voucher"), value=number))
        elif client.username and client.method != LoginMethod.CLICK.value:
            rows.append(render("row", label=say("status_user"), value=client.username))
        rows.append(
            self._left(
                say("status_time_left"),
                language.duration(client.seconds_left) if client.seconds_left is not None else "",
                client.seconds_left,
                elapsed_s,
                say("status_unlimited"),
            )
        )
        rows.append(render("row", label=say("status_time_online"), value=language.duration(elapsed_s)))
        if client.bytes_left is not None:
            used = client.upload_bytes + client.download_bytes
            left = language.size(client.bytes_left)
            rows.append(self._left(say("status_data_left"), left, client.bytes_left, used, ""))
        rows.append(render("row", label=say("status_download"), value=language.size(client.download_bytes)))
        rows.append(render("row", label=say("status_upload"), value=language.size(client.upload_bytes)))
        for key, bps in (("status_speed_down", client.download_bps), ("status_speed_up", client.upload_bps)):
            if bps:
                rows.append(render("row", label=say(key), value=say("status_speed", rate=language.rate(bps))))
        message = client.reply_message.strip()[:_MAX_SHOWN_MESSAGE]
        onward = way_on(client.redirection_url) or way_on(visit.zone.redirect_url) or way_on(visit.url)
        content = render(
            "status",
            heading=say("status_title"),
            lead=say("status_lead"),
            details=render("detail", text=say("error_server_says", message=message)) if message else _NOTHING,
            way_on=render("action", href=onward, label=say("continue_to", host=host_of(onward)))
            if onward
            else _NOTHING,
            rows=joined(rows),
            logout=say("logout_button"),
            token=token,
            lang=language.code,
            bookmark=self._way_back(visit, client, address),
        )
        return self._page(visit, say("status_title"), content, path="/status")

    def _way_back(self, visit: Visit, client: Client, address: str) -> Markup:
        """How to see newer numbers, how to find this page again, and how to get in again.

        Numbers do not renew themselves: a page that loads anew loses its reader's place (WCAG 2.1, 2.2.1).
        """
        say = visit.language.say
        before, _, after = say("status_bookmark", address="\0").partition("\0")
        link = self.theme.render("link", href=address, label=address.removeprefix("http://").rstrip("/"))
        newer = self.theme.render("link", href=f"/status{visit.query()}", label=say("status_newer"))
        pieces = [Markup(newer + "."), Markup(html.escape(before) + link + html.escape(after))]
        if visit.zone.remember:
            pieces.append(Markup(html.escape(say("status_remembered"))))
        elif client.method == LoginMethod.VOUCHER.value:
            pieces.append(Markup(html.escape(say("status_voucher_again"))))
        return Markup(" ".join(pieces))

    def _left(self, label: str, value: str, left: int | None, used: float, unlimited: str) -> Markup:
        if left is None:
            return self.theme.render("row", label=label, value=unlimited)
        part = str(round(1000 * left / max(1.0, left + used)))
        return self.theme.render("row_meter", label=label, value=value, part=part)

    def logout(self, visit: Visit, token: str) -> Response:
        """Asks before a logout that came as a link."""
        say = visit.language.say
        content = self.theme.render(
            "logout",
            heading=say("logout_title"),
            text=say("logout_lead"),
            token=token,
            lang=visit.language.code,
            button=say("logout_button"),
            back=say("back"),
        )
        return self._page(visit, say("logout_title"), content, path="/logout")

    def logged_out(self, visit: Visit) -> Response:
        """The end of a session."""
        say = visit.language.say
        return self._message(visit, "logged_out_title", "logged_out", action=("/", say("log_in_again")))

    def terms(self, visit: Visit) -> Response:
        """The terms of use on a page of their own."""
        say = visit.language.say
        content = self.theme.render(
            "terms_page",
            title=say("terms_title"),
            text=visit.zone.terms or say("terms_none"),
            lang=visit.language.code,
            back=say("back"),
        )
        return self._page(visit, say("terms_title"), content, path="/terms")

    def no_lease(self, visit: Visit) -> Response:
        """The device has no address from this gateway."""
        again = ("/", visit.language.say("try_again"))
        return self._message(visit, "no_lease_title", "no_lease", detail="no_lease_advice", action=again, status=403)

    def moment(self, visit: Visit) -> Response:
        """The daemon is restarting; the page comes back by itself."""
        again = ("/", visit.language.say("try_again"))  # for who sees it in a sheet that does not reload
        return self._message(visit, "moment_title", "moment", action=again, status=503, refresh_s=_MOMENT_S)

    def being_connected(self, visit: Visit) -> Response:
        """A login of this device is under way; the page comes back by itself."""
        return self._message(visit, "moment_title", "moment_login", refresh_s=1)

    def refused_origin(self, visit: Visit) -> Response:
        """A form that another site sent."""
        again = ("/", visit.language.say("to_login"))
        return self._message(visit, "refused_title", "refused_origin", action=again, status=403)

    def not_found(self, visit: Visit) -> Response:
        """No such page."""
        again = ("/", visit.language.say("to_login"))
        return self._message(visit, "not_found_title", "not_found", action=again, status=404)

    def _message(
        self,
        visit: Visit,
        title: str,
        text: str,
        *,
        detail: str = "",
        action: tuple[str, str] | None = None,
        status: int = 200,
        refresh_s: int = 0,
    ) -> Response:
        say, render = visit.language.say, self.theme.render
        refresh = _NOTHING
        if refresh_s:
            refresh = render("refresh", seconds=str(refresh_s), url=f"/{visit.query()}")
        content = render(
            "message",
            heading=say(title),
            text=say(text),
            details=render("detail", text=say(detail)) if detail else _NOTHING,
            actions=render("action", href=f"{action[0]}{visit.query()}", label=action[1]) if action else _NOTHING,
        )
        return self._page(
            visit, say(title), content, status=status, refresh=refresh, retry_after_s=refresh_s if status == 503 else 0
        )

    def _page(
        self,
        visit: Visit,
        title: str,
        content: Markup,
        *,
        status: int = 200,
        refresh: Markup = _NOTHING,
        path: str = "/",
        retry_after_s: int = 0,
    ) -> Response:
        page = self._layout(visit, title, content, refresh=refresh, path=path)
        return self._response(visit, page.encode(), status, retry_after_s)

    def _layout(
        self, visit: Visit, title: str, content: Markup, *, refresh: Markup = _NOTHING, path: str = "/"
    ) -> Markup:
        language, zone = visit.language, visit.zone
        links = [
            self.theme.render("language_current", code=other.code, name=other.name)
            if other.code == language.code
            else self.theme.render(
                "language_link", href=f"{path}{visit.query(other)}", code=other.code, name=other.name
            )
            for other in self.languages.all
        ]
        return self.theme.render(
            "layout",
            lang=language.code,
            direction=language.direction,
            title=title,
            style=self.theme.style,
            refresh=refresh,
            network=language.say("network", name=zone.ssid) if zone.ssid else "",
            content=content,
            languages_label=language.say("languages"),
            languages=joined(links),
        )

    def _response(self, visit: Visit, body: bytes, status: int, retry_after_s: int) -> Response:
        headers = [
            ("Cache-Control", "no-store"),
            ("Content-Language", visit.language.code),
            ("Content-Security-Policy", self.theme.content_security_policy),
            ("X-Frame-Options", "DENY"),  # for web views that do not know frame-ancestors
            ("X-Content-Type-Options", "nosniff"),
            # Not no-referrer: with it a form's own POST would carry `Origin: null` (Fetch standard).
            ("Referrer-Policy", "same-origin"),
        ]
        if retry_after_s:
            headers.append(("Retry-After", str(retry_after_s)))
        return Response(status, body, "text/html; charset=utf-8", headers)


class _Composed:
    """A page cut at its marks: octets, and between them the names of the values that go there."""

    __slots__ = ("_octets", "_values")

    def __init__(self, page: Markup) -> None:
        pieces = _MARK.split(page)  # text, name, kind of mark, text, …
        self._octets = [piece.encode() for piece in pieces[::3]]
        self._values = [(name, kind == "%00") for name, kind in zip(pieces[1::3], pieces[2::3], strict=True)]

    def fill(self, values: Mapping[str, str]) -> bytes:
        """The page with these values: escaped as `Theme.render` does it, or percent-encoded where it is in a link."""
        out = [self._octets[0]]
        for (name, in_link), octets in zip(self._values, self._octets[1:], strict=True):
            value = values[name]
            if in_link:
                value = quote(value, safe="")
            elif not isinstance(value, Markup):
                value = html.escape(value, quote=True)
            out.append(value.encode())
            out.append(octets)
        return b"".join(out)
