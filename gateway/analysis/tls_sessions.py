"""TLS sessions of a capture: hellos of both sides joined, with the time between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.analysis.tls import VERSIONS as VERSIONS
from gateway.analysis.tls import ClientHello, ServerHello, cipher_name, ja4

if TYPE_CHECKING:
    from gateway.analysis.flows import Connection
    from gateway.analysis.state import State


class TlsTable:
    """Rows and counts; a row is a dictionary so that the server's half can be filled in later."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.total = 0
        self.names: dict[str, int] = {}
        self.slow: list[tuple[int, int, int]] = []  # (ns, connection, frame)

    def client(self, st: State, conn: Connection, app: Any, hello: ClientHello, t: int, frame: int) -> None:
        """Take a ClientHello; a second one on the connection answers a retry request and is the same session."""
        if app.tls is not None:
            return
        self.total += 1
        row: dict[str, Any] = {
            "t": t,
            "frame": frame,
            "server_frame": None,
            "flow": conn,
            "sni": hello.sni,
            "ech": hello.ech,
            "version": None,
            "offered": [VERSIONS.get(item, f"0x{item:04x}") for item in hello.versions[:8]]
            or [VERSIONS.get(hello.legacy_version, f"0x{hello.legacy_version:04x}")],
            "cipher": None,
            "alpn": hello.alpn,
            "alpn_chosen": None,
            "ja4": ja4(hello, "t"),
            "hello_ns": None,
            "alert": None,
            "resumed": None,
            "retry": False,
            "session": hello.session,
        }
        app.tls = row
        if hello.sni is not None:
            if conn.name is None:
                conn.name = hello.sni
            if len(self.names) < st.settings.tables.names or hello.sni in self.names:
                self.names[hello.sni] = self.names.get(hello.sni, 0) + 1
        if len(self.rows) < st.settings.tables.rows:
            self.rows.append(row)

    def server(self, conn: Connection, app: Any, hello: ServerHello, t: int, frame: int) -> None:
        """Take a ServerHello; a retry request is noted, the hello after it fills the row."""
        row = app.tls
        if row is None or row["server_frame"] is not None:
            return
        row["server_frame"] = frame
        row["retry"] = hello.retry
        row["version"] = VERSIONS.get(hello.version, f"0x{hello.version:04x}")
        row["cipher"] = cipher_name(hello.cipher)
        row["alpn_chosen"] = hello.alpn
        row["resumed"] = (
            hello.pre_shared if hello.version == 0x0304 else bool(hello.session) and hello.session == row["session"]
        )
        if t >= row["t"]:
            row["hello_ns"] = t - row["t"]
            self.slow.append((t - row["t"], conn.number, frame))
            if len(self.slow) > 2000:
                self.slow = sorted(self.slow, reverse=True)[:1000]
