"""The Internet of the laboratory: web, DNS and echo servers in one small program (standard library only).

Runs in the Internet's namespace and prints `ready` when everything listens, on all addresses, IPv4 and IPv6:

    TCP 80, 8080        HTTP/1.1 with keep-alive: the systems' connectivity probes get their right answers, `/bytes/N`
                        gets N octets, a POST's body is swallowed and its size told, everything else `the internet`
    TCP 443, 853, 2222  accepts, and echoes as port 7 does: enough to see whether a connection is possible
    TCP 7, UDP 7        echo; also UDP 443 and 853
    TCP 9               swallows; TCP 19 sends as long as somebody reads
    UDP 53, TCP 53      DNS: every name is 203.0.113.80 and 2001:db8:113::80; TXT tells the server's own address
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

WEB4 = bytes((203, 0, 113, 80))
WEB6 = bytes.fromhex("20010db8011300000000000000000080")
PROBES = {
    "/generate_204": (204, ""),
    "/gen_204": (204, ""),
    "/hotspot-detect.html": (200, "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>"),
    "/library/test/success.html": (200, "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>"),
    "/connecttest.txt": (200, "Microsoft Connect Test"),
    "/ncsi.txt": (200, "Microsoft NCSI"),
    "/success.txt": (200, "success\n"),
    "/canonical.html": (
        200,
        '<meta http-equiv="refresh" content="0;url=https://support.mozilla.org/kb/captive-portal"/>',
    ),
    "/check_network_status.txt": (200, "NetworkManager is online\n"),
}
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests on one connection until the client closes it."""
    while line := await reader.readline():
        method, path, _version = ([*line.decode("latin-1").split(), "", "", ""])[:3]
        length = 0
        close = False
        while (header := await reader.readline()).strip():
            name, _, value = header.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "connection" and "close" in value.lower():
                close = True
        taken = 0
        while taken < length:
            piece = await reader.read(min(65536, length - taken))
            if not piece:
                return
            taken += len(piece)
        path = "/" + path.partition("://")[2].partition("/")[2] if "://" in path else path
        status, text = PROBES.get(path.partition("?")[0], (200, "the internet\n"))
        body = text.encode()
        if path.startswith("/bytes/"):
            body = bytes(int(path.removeprefix("/bytes/")))
        if method == "POST":
            body = f"{taken}\n".encode()
        reason = "No Content" if status == 204 else "OK"
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        writer.write(head.encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        if close:
            return


async def serve_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back whatever comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def serve_sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Swallow whatever comes."""
    while await reader.read(1 << 20):
        pass


async def serve_source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send zeros as long as somebody reads."""
    block = bytes(1 << 18)
    while True:
        writer.write(block)
        await writer.drain()


async def serve_dns_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer DNS queries framed by their length (RFC 7766)."""
    local = writer.get_extra_info("sockname")[0]
    while True:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = dns_answer(await reader.readexactly(length), local)
        writer.write(struct.pack("!H", len(answer)) + answer)
        await writer.drain()


def dns_answer(query: bytes, local: str) -> bytes:
    """Answer one query: A and AAAA with the web server, TXT with `local`, anything else with no record."""
    end = 12
    while query[end]:
        end += 1 + query[end]
    question = query[12 : end + 5]
    kind = struct.unpack_from("!H", query, end + 1)[0]
    data = {1: WEB4, 28: WEB6, 16: bytes((len(local),)) + local.encode()}.get(kind)
    records = b"" if data is None else struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if records else 0, 0, 0) + question + records


class DatagramServer(asyncio.DatagramProtocol):
    """Answers every datagram with what `reply` makes of it."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self.reply = reply
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer by."""
        self.transport = cast(asyncio.DatagramTransport, transport)  # what the loop makes is no subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer; what cannot be understood is not answered."""
        try:
            answer = self.reply(data)
        except (IndexError, struct.error):
            return
        if self.transport is not None:
            self.transport.sendto(answer, addr)


async def serve(port: int, handler: Handler) -> None:
    """Listen on one TCP port of all addresses."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away; nobody waits for more
        finally:
            writer.close()

    for host in ("0.0.0.0", "::"):
        await asyncio.start_server(guarded, host, port, backlog=512)


async def serve_datagrams(address: str, port: int, reply: Callable[[bytes], bytes]) -> None:
    """Listen on one UDP port of one address, so that answers leave from the address that was asked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: DatagramServer(reply), (address, port), family=family)


async def main() -> None:
    """Start everything, say so, and stay."""
    for port in (80, 8080):
        await serve(port, serve_http)
    for port in (7, 443, 853, 2222):
        await serve(port, serve_echo)
    await serve(9, serve_sink)
    await serve(19, serve_source)
    await serve(53, serve_dns_stream)
    # Datagram sockets are bound to single addresses: an answer must come from where the question went.
    for address in ("203.0.113.53", "2001:db8:113::53", "203.0.113.80", "2001:db8:113::80", "198.18.0.1"):
        await serve_datagrams(address, 53, lambda query, local=address: dns_answer(query, local))  # type: ignore[misc]
        for port in (7, 443, 853):
            await serve_datagrams(address, port, lambda data: data)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
