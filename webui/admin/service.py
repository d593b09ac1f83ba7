"""The administration as a whole: where it listens, its certificate, and what it needs to know of the gateway.

A listener is bound to one interface (SO_BINDTODEVICE), so that nothing that arrives elsewhere reaches it, whatever
address it was sent to. The interfaces of guest zones are refused here, and the gateway's own rules refuse guests again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.memory import give_back, tidy
from gateway.values import value_class
from webui.admin.app import AdminApp
from webui.admin.bundles import PLACE, BundleIntake
from webui.admin.capture_desk import CaptureDesk
from webui.admin.certificate import CertificateError, forget, keep, kept, made_here, own_certificate, tls_context
from webui.admin.daemon import AdminDaemon, Answer, ControlError
from webui.admin.words import zone_of
from webui.backend import LocalBackend
from webui.jobs import Limits
from webui.listener import Listener
from webui.server import HttpServer, ServerLimits

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8443
_LOOK_S: Final = 5.0  # at the daemon, for another configuration
_RENEW_LOOK_S: Final = 86400.0
_TIDY_S: Final = 15.0
_IP_FREEBIND: Final = 15  # linux/in.h
_LOOPBACK: Final = "lo"

LIMITS: Final = ServerLimits(
    read_timeout_s=30.0,
    write_timeout_s=30.0,
    idle_timeout_s=60.0,
    max_connections=256,
    max_connections_per_client=64,
    rate=100.0,
    rate_burst=400.0,
)


class ListenError(Exception):
    """The operator is wrong about where to listen; the message says what is accepted."""


@value_class
class Place:
    """One listening socket: an address (empty: every one) on an interface (empty: whichever has the address)."""

    address: str
    port: int
    interface: str = ""

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown or '*'}:{self.port}" + (f" on {self.interface}" if self.interface else "")


def read_place(text: str) -> Place:
    """`ADDRESS:PORT`, `[ADDRESS]:PORT` or `INTERFACE:PORT`, the port left out for 8443; raises ListenError."""
    host, colon, port_text = text.rpartition(":")
    if not colon or text.endswith("]") or (text.count(":") > 1 and "]" not in text):
        host, port_text = text, str(DEFAULT_PORT)
    if not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text) < 65536:
        raise ListenError(f"--listen {text}: the port is a number from 1 to 65535")
    host = host.strip("[]")
    try:
        return Place(str(ipaddress.ip_address(host)), int(port_text))
    except ValueError:
        if not 0 < len(host.encode()) < 16:
            raise ListenError(f"--listen {text}: ADDRESS:PORT or INTERFACE:PORT is wanted") from None
        return Place("", int(port_text), host)


@value_class
class Options:
    """What the command line says."""

    listen: tuple[Place, ...] = ()  # empty: what the gateway's configuration says
    state_dir: Path = Path("/var/lib/postern-admin-web")
    certificate: Path | None = None
    key: Path | None = None
    spool: Path | None = None  # of captures; none are served without one
    capture_limit_bytes: int = 500 << 20
    bundles: Path = PLACE  # where an upgrade is put


class AdminService:
    """Everything that `postern-web --role admin` runs."""

    def __init__(
        self,
        daemon: AdminDaemon,
        options: Options,
        parser: str,
        group: asyncio.TaskGroup,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Tasks run in `group`. Raises OSError or SyntaxError for broken templates."""
        self.app = AdminApp(daemon, clock, wall)
        self.app.bundles = BundleIntake(options.bundles)
        if options.spool is not None:
            limits = Limits(upload_bytes=options.capture_limit_bytes)
            backend = LocalBackend(options.spool, wall, keep_free_share=limits.keep_free_share)
            self.app.captures = CaptureDesk(backend, limits, group, clock, wall)
        self.server = HttpServer(LIMITS, parser, group)
        self._daemon = daemon
        self._options = options
        self._group = group
        self._clock = clock
        self._listening: dict[Place, Listener] = {}
        self._failed: set[Place] = set()
        self._refused: set[str] = set()
        self._settled = False
        self._certificate: tuple[Path, Path] | None = None
        self._written: list[tuple[int, int]] = []  # of these files
        self._context: ssl.SSLContext | None = None
        self._context_until = 0.0
        self._refusals: set[str] = set()  # of certificates, said once
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen as soon as there is a certificate."""
        self._tasks = [
            self._group.create_task(self._run(), name="admin listeners"),
            self._group.create_task(self._keep_tidy(), name="admin memory"),
        ]

    @property
    def places(self) -> list[Place]:
        """Where the administration listens now."""
        return list(self._listening)

    @property
    def settled(self) -> bool:
        """Whether it listens where it was last told to, as far as that is possible."""
        return self._settled

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let what is under way be answered for `grace_s` seconds, then end everything."""
        for task in self._tasks:
            task.cancel()
        for listener in self._listening.values():
            listener.close()
        if self.app.captures is not None:
            self.app.captures.close()
        await self.server.stop(grace_s)
        await self._daemon.close()

    async def _run(self) -> None:
        said = ""
        while True:
            state: Answer = {}
            config: Answer = {}
            try:
                state = await self._daemon.ask("admin.state", {})
                config = await self._daemon.ask("admin.config", {})
                said = ""
            except ControlError as err:
                if err.message != said:
                    log.warning("no daemon code=%s reason=%s", err.code, err.message)
                    said = err.message
            self.app.hostname = str(state.get("hostname") or self.app.hostname or socket.gethostname())
            self.app.version = str(state.get("version") or self.app.version)
            if state.get("timezone"):
                self.app.zone = zone_of(str(state["timezone"]))
            # Without the daemon's word we keep what we have: it may be restarting.
            if self._options.listen or config or not self._listening:
                await self._apply(self._wanted(config), config)
                self._settled = True
            await asyncio.sleep(_LOOK_S)

    async def _keep_tidy(self) -> None:
        """Give back what the start needed, and from then on what each busy time did; else the most stays for good."""
        counts, tidied = self.server.counts, 0
        await asyncio.sleep(_TIDY_S)
        give_back()
        while True:
            await asyncio.sleep(_TIDY_S)
            served = counts.connections + counts.requests
            if served != tidied:
                tidied = served
                tidy()

    def _wanted(self, config: Answer) -> list[Place]:
        """Where to listen: what the command line says, else the configuration; loopback before either is known."""
        if self._options.listen:
            return list(self._options.listen)
        if config.get("enabled") is False:
            return []
        port = int(config.get("port") or DEFAULT_PORT)
        guests = {str(name) for name in config.get("guest_interfaces") or ()}
        places: list[Place] = []
        for interface in config.get("interfaces") or (_LOOPBACK,):
            if interface in guests:
                if interface not in self._refused:
                    log.error("not listening on a guests' interface interface=%s", interface)
                self._refused.add(interface)
            elif interface == _LOOPBACK:
                # Bound to the interface like the others: without, they stand in the way of each other.
                places += [Place("127.0.0.1", port, _LOOPBACK), Place("::1", port, _LOOPBACK)]
            else:
                places.append(Place("", port, str(interface)))
        return places

    async def _apply(self, wanted: list[Place], config: Answer) -> None:
        """Make the listeners as wanted; the same again changes nothing."""
        for place in [place for place in self._listening if place not in wanted]:
            self._listening.pop(place).close()
            log.info("no longer listening place=%s", place)
        if await self._certify(config):
            for place in wanted:
                if place not in self._listening:
                    self._listen(place)

    async def _certify(self, config: Answer) -> bool:
        """See that the right certificate is served; False when there is none to serve.

        It is that of the command line. Else it is the configuration's; while that cannot be used, its copy, which a
        backup may have brought; and one that is made here before nobody can log in to mend it.
        """
        options = self._options
        if options.certificate is not None and options.key is not None:
            return self._serve((options.certificate, options.key))
        if config.get("certificate") and config.get("certificate_key"):
            files, before = (Path(config["certificate"]), Path(config["certificate_key"])), self._context
            if self._serve(files):
                if self._context is not before:
                    await asyncio.to_thread(_keep, files, options.state_dir)
                return True
        elif config:
            await asyncio.to_thread(forget, options.state_dir)
        copy = kept(options.state_dir)  # looked at as well while the daemon does not say what is configured
        return (all(path.is_file() for path in copy) and self._serve(copy)) or await self._serve_own()

    async def _serve_own(self) -> bool:
        folder = self._options.state_dir
        if self._certificate != made_here(folder) or self._clock() > self._context_until:
            try:
                await asyncio.to_thread(own_certificate, folder, self.app.hostname)
            except CertificateError as err:
                self._refuse(err)
                return False
        return self._serve(made_here(folder))

    def _serve(self, files: tuple[Path, Path]) -> bool:
        written = _written(files)  # a restored backup puts another certificate in the same place
        if files == self._certificate and written == self._written and self._clock() <= self._context_until:
            return True
        try:
            context = tls_context(*files)
        except CertificateError as err:
            self._refuse(err)
            return False
        for listener in self._listening.values():
            listener.set_tls(context)
        self._context = context
        self._written = written
        self._certificate, self._context_until = files, self._clock() + _RENEW_LOOK_S
        return True

    def _refuse(self, err: CertificateError) -> None:
        if str(err) not in self._refusals:
            log.error("not served: %s", err)
            self._refusals.add(str(err))

    def _listen(self, place: Place) -> None:
        try:
            sock = _bind(place)
        except OSError as err:
            if place not in self._failed:
                log.warning("cannot listen place=%s reason=%s; trying on", place, err)
                self._failed.add(place)
            return
        self._listening[place] = Listener(self.server, sock, self.app, self._context)
        self._failed.discard(place)
        log.info("listening place=%s", place)


def _keep(files: tuple[Path, Path], folder: Path) -> None:
    try:
        keep(files, folder)
    except OSError as err:
        log.warning("no copy of the certificate for backups file=%s reason=%s", files[0], err.strerror or err)


def _written(files: tuple[Path, Path]) -> list[tuple[int, int]]:
    """What tells files from others that take their places; empty for files that cannot be looked at."""
    try:
        return [(about.st_ino, about.st_mtime_ns) for about in (path.stat() for path in files)]
    except OSError:
        return []


def _bind(place: Place) -> socket.socket:
    """A listening socket; an empty address with an interface means both families there. Raises OSError."""
    six = not place.address or ":" in place.address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(place.address)))
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if place.interface:
            # Nobody needs a capability for this since Linux 5.7.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, place.interface.encode() + b"\0")
        sock.bind((place.address or "::", place.port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
