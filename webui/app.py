"""The pages that are not hot, as a Bottle application: status, questions before a logout, terms, files of the theme.

Each application is made explicitly for one zone. It runs in the threads of `wsgi.ThreadedWsgi`; `lookup` may block.
"""

from __future__ import annotations

from collections.abc import Callable

from bottle import Bottle, HTTPResponse, request

from webui.messages import Response, plain
from webui.portal.daemon import DaemonUnavailable, NoLease
from webui.portal.desk import Desk, parse_fields
from webui.portal.model import Client, SessionState
from webui.portal.pages import Visit

Lookup = Callable[[str], Client]  # by address; raises NoLease, DaemonUnavailable


def make_app(desk: Desk, lookup: Lookup) -> Bottle:
    """The application of one zone."""
    app = Bottle()
    app.catchall = False  # the server logs what is our fault, and answers
    pages = desk.pages

    def visit() -> Visit:
        # From the environment: Bottle's get_header fails on octets that are not UTF-8.
        environ = request.environ
        return desk.visit(parse_fields(environ["QUERY_STRING"]), environ.get("HTTP_ACCEPT_LANGUAGE", ""))

    def online(page: Callable[[Visit, Client], Response]) -> Callable[[], HTTPResponse]:
        def handler() -> HTTPResponse:
            guest = visit()
            try:
                # Not request.remote_addr: Bottle takes that from X-Forwarded-For, which any guest can write.
                client = lookup(request.environ["REMOTE_ADDR"])
            except NoLease:
                return _out(pages.no_lease(guest))
            except DaemonUnavailable:
                return _out(pages.moment(guest))
            if client.state is not SessionState.ONLINE:
                return HTTPResponse(status=303, Location=f"/{guest.query()}", Cache_Control="no-store")
            return _out(page(guest, client))

        return handler

    def status(guest: Visit, client: Client) -> Response:
        return pages.status(
            guest, client, desk.make_token("logout", client.ip, client.mac), desk.status_address, desk.clock()
        )

    def logout(guest: Visit, client: Client) -> Response:
        return pages.logout(guest, desk.make_token("logout", client.ip, client.mac))

    def file(name: str) -> HTTPResponse:
        found = pages.theme.files.get(name)
        if found is None:
            return _out(plain(404, "no such file"))
        return _out(Response(200, found[1], found[0], [("Cache-Control", "max-age=3600"), *_INERT]))

    app.route("/status", "GET", online(status))
    app.route("/logout", "GET", online(logout))
    app.route("/logged-out", "GET", lambda: _out(pages.logged_out(visit())))
    app.route("/terms", "GET", lambda: _out(pages.terms(visit())))
    app.route("/static/<name>", "GET", file)
    return app


# An image of a theme that is opened as a page of its own must not run anything.
_INERT = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "default-src 'none'; sandbox"))


def _out(response: Response) -> HTTPResponse:
    """Our response in Bottle's class."""
    out = HTTPResponse(response.body, response.status)
    out.content_type = response.content_type
    for name, value in response.headers:
        out.add_header(name, value)
    return out
