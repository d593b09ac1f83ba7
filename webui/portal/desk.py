"""What every handler of one zone needs: its configuration, the daemon, the pages, and the checks that all share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from gateway.addresses import MacAddress
from gateway.values import value_class
from webui.messages import Request
from webui.portal.daemon import Daemon
from webui.portal.logins import MAX_CODE_CHARS, Logins
from webui.portal.model import PortalConfig, Zone
from webui.portal.notes import Kind, NoteLimiter
from webui.portal.pages import Pages, Visit
from webui.portal.redirect import MAX_ORIGINAL_URL, host_and_target, split_port
from webui.portal.tokens import make_token, read_token

_MAX_FIELDS: Final = 16
_MAX_NOTE: Final = 200

Fields = dict[str, str]


@value_class
class Desk:
    """One zone's counter; handlers are functions of it and a request."""

    zone: Zone
    config: PortalConfig
    daemon: Daemon
    logins: Logins
    pages: Pages
    notes: NoteLimiter
    clock: Callable[[], float]  # monotonic seconds

    @property
    def own_names(self) -> frozenset[str]:
        """The hosts under which this zone's portal is itself; all others are strangers' (lower case, no port)."""
        return frozenset((str(self.zone.address), self.config.portal_name, self.config.status_name))

    @property
    def status_address(self) -> str:
        """Where guests find the status page by name."""
        # Without a port, which people forget: port 80 of the zone's address is the portal's, after login too.
        return f"http://{self.config.status_name}/"

    def visit(self, fields: Fields, accept_language: str) -> Visit:
        """Language and address of a visitor: what was chosen, else the zone's language, else the browser's."""
        languages = self.pages.languages
        language = (
            languages.get(fields.get("lang", ""))
            or languages.get(self.zone.language)
            or languages.choose(accept_language)
        )
        code = fields.get("code", "").strip()[:MAX_CODE_CHARS]
        return Visit(self.zone, language, fields.get("u", "")[:MAX_ORIGINAL_URL], code)

    def location(self, request: Request, path: str) -> str:
        """An absolute address of ours, with the name that the guest used and always with our port.

        After login port 80 is the Internet's and no longer redirected to us.
        """
        name, _ = split_port(host_and_target(request)[0])
        host = name if name in self.own_names else str(self.zone.address)
        return f"http://{host}:{self.zone.port}{path}"

    def make_token(self, purpose: str, ip: str, mac: MacAddress) -> str:
        """A form token for one client."""
        return make_token(self.config.csrf_secret, purpose, self.zone.name, ip, mac, self.clock())

    def read_token(self, purpose: str, ip: str, token: str) -> MacAddress | None:
        """The device for which we made a form's token when it had this address; None when the token is not good."""
        return read_token(token, self.config.csrf_secret, purpose, self.zone.name, ip, self.clock())

    def from_own_page(self, request: Request) -> bool:
        """Whether the browser says that the request comes from one of our pages, or says nothing about it.

        `Origin: null` is let through for forms, where the token decides: some web views send it for their own pages.
        """
        site = request.header("sec-fetch-site")
        if site not in ("", "same-origin", "none"):
            return False
        origin = request.header("origin").lower()
        return origin in ("", "null") or self._is_own_origin(origin)

    def _is_own_origin(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
            return parts.scheme == "http" and parts.hostname in self.own_names and parts.port == self.zone.port
        except ValueError:
            return False

    def is_news(self, ip: str, kind: Kind) -> bool:
        """Whether something that a client does is worth a line in its timeline: it was not said just now."""
        return self.notes.allows(ip, kind, self.clock())

    def note(self, ip: str, kind: Kind, text: str) -> None:
        """A line for the client's timeline, if there was not one just now."""
        if self.is_news(ip, kind):
            self.daemon.notify("client.note", {"ip": ip, "kind": kind, "text": text[:_MAX_NOTE]})


def parse_fields(text: str) -> Fields:
    """A query or a form (application/x-www-form-urlencoded); the first of a name counts. Never raises.

    Octets that are not UTF-8 become U+FFFD; with too many fields there are none.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    fields: Fields = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields
