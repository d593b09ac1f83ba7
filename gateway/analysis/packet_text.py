"""Decoded packets as text: every layer, every field, and the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.analysis.escape import show

if TYPE_CHECKING:
    from gateway.analysis.dissect import Dissected
    from gateway.analysis.frames import Record
    from gateway.analysis.text import Style


def packets_text(packets: Sequence[Dissected], style: Style, *, first_unix_ns: int | None, with_bytes: bool) -> str:
    """Decoded packets with every field, as the second look shows them."""
    from gateway.analysis.text import wrapped  # the pages want the bytes below only

    lines = []
    start = first_unix_ns if first_unix_ns is not None else (packets[0].t_ns if packets else 0)
    for packet in packets:
        seconds = (packet.t_ns - start) / 1e9
        head = f"#{packet.frame}  {seconds:.6f} s  {packet.wire_bytes} bytes  {show(packet.summary)}"
        lines.append(style.paint(head, "bold"))
        for layer in packet.layers:
            lines.append("  " + style.paint(show(layer.name), "heading"))
            for name, value in layer.fields:
                lines += wrapped(show(value, 400), style, " " * 24, first=f"    {show(name, 18):<18}  ")
        if with_bytes:
            lines += [f"  {line}" for line in hex_lines(packet.data)]
        lines.append("")
    return "\n".join(lines)


def plain_text(records: Sequence[Record], style: Style, *, first_unix_ns: int | None) -> str:
    """Packets as their bytes only, for a box without a dissector."""
    lines: list[str] = []
    start = first_unix_ns if first_unix_ns is not None else (records[0].t_ns if records else 0)
    for record in records:
        head = f"#{record.frame}  {(record.t_ns - start) / 1e9:.6f} s  {record.wire_bytes} bytes"
        lines += [style.paint(head, "bold"), *(f"  {line}" for line in hex_lines(record.data)), ""]
    return "\n".join(lines)


def hex_lines(data: bytes, limit: int = 512) -> list[str]:
    """Bytes as offset, hexadecimal and printable characters, sixteen to a line."""
    lines = []
    for at in range(0, min(len(data), limit), 16):
        row = data[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:04x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {letters}")
    if len(data) > limit:
        lines.append(f"…     {len(data) - limit} more bytes")
    return lines
