"""The only door to scapy: a few chosen packets, decoded to every field, in a process of its own.

`dissect` starts `python -m gateway.analysis.dissect`, hands it at most `MOST_PACKETS` packets and reads back JSON. The
child imports scapy, confines itself, and then looks at the packets; whatever they do to it, this process only waits for
the deadline. Without scapy the call raises `DissectorMissing`, whose text says what to install.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from gateway.analysis.frames import Record

MOST_PACKETS: Final = 300
MOST_BYTES_EACH: Final = 65_536
MOST_FIELDS: Final = 400  # of one packet
MOST_LAYERS: Final = 40
VALUE_LIMIT: Final = 400
DEADLINE_S: Final = 60.0
MEMORY_BYTES: Final = 512 << 20
CPU_S: Final = 30
HIDDEN: Final = frozenset({"Cookie", "Set_Cookie", "Authorization", "Proxy_Authorization"})  # HTTP, never shown
ANSWER_LIMIT: Final = 64 << 20


class DissectorMissing(Exception):
    """scapy is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "Decoding packets field by field needs scapy, which is not installed. Install it with "
            "`apt-get install python3-scapy` or `pip install 'postern[dissect]'`; everything else works without it."
        )


class DissectorFailed(Exception):
    """The child ended without an answer; the text says how."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One protocol header: its name and its fields as text."""

    name: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Dissected:
    """One decoded packet. All text is raw: whoever shows it must escape it."""

    frame: int
    t_ns: int
    wire_bytes: int
    summary: str
    layers: tuple[Layer, ...]
    data: bytes


def available() -> bool:
    """Whether scapy can be imported, without importing it."""
    return find_spec("scapy") is not None


def dissect(records: Sequence[Record]) -> list[Dissected]:
    """Decode records, at most MOST_PACKETS of them; raises DissectorMissing and DissectorFailed."""
    if not available():
        raise DissectorMissing
    chosen = records[:MOST_PACKETS]
    question = json.dumps(
        [[record.linktype, base64.b64encode(record.data[:MOST_BYTES_EACH]).decode()] for record in chosen]
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gateway.analysis.dissect"],
            input=question.encode(),
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": "/nonexistent"},
        )
    except subprocess.TimeoutExpired:
        raise DissectorFailed(f"scapy has not decoded {len(chosen)} packets within {DEADLINE_S:g} seconds") from None
    if done.returncode != 0 or len(done.stdout) > ANSWER_LIMIT:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise DissectorFailed(f"scapy stopped while decoding: {last[0]}")
    return [
        Dissected(
            record.frame,
            record.t_ns,
            record.wire_bytes,
            answer["summary"],
            tuple(Layer(name, tuple((key, value) for key, value in fields)) for name, fields in answer["layers"]),
            record.data,
        )
        for record, answer in zip(chosen, json.loads(done.stdout), strict=True)
    ]


def _child() -> int:
    """Decode what comes on standard input; scapy is in memory before the process gives everything up."""
    import logging

    logging.disable(logging.CRITICAL)  # scapy warns about routes and interfaces that it shall not have
    from scapy.config import conf
    from scapy.layers import dhcp, dhcp6, dns, http, inet, inet6, l2, llmnr, ntp, ppp, rtp, vxlan  # noqa: F401

    from gateway.analysis import sandbox

    # The interpreter and scapy's own tree stay readable: a few layers are imported when they are first met.
    scapy_tree = Path(l2.__file__).parents[2]
    user = (65534, 65534) if os.getuid() == 0 else None
    limits = sandbox.Limits(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=ANSWER_LIMIT)
    sandbox.confine(limits, readable=[scapy_tree], user=user)
    answers: list[dict[str, Any]] = []
    for linktype, encoded in json.load(sys.stdin):
        data = base64.b64decode(encoded)
        layer = conf.l2types.num2layer.get(linktype, conf.raw_layer)
        if linktype in {12, 101, 228, 229}:
            layer = inet6.IPv6 if data[:1] and data[0] >> 4 == 6 else inet.IP
        try:
            packet = layer(data)
        except Exception as err:  # noqa: BLE001 - scapy raises anything at all on hostile bytes
            answers.append({"summary": f"not decodable: {type(err).__name__}", "layers": []})
            continue
        answers.append({"summary": _summary(packet), "layers": _layers(packet)})
    json.dump(answers, sys.stdout)
    return 0


def _summary(packet: Any) -> str:  # Any: a scapy packet
    try:
        return str(packet.summary())[:VALUE_LIMIT]
    except Exception as err:  # noqa: BLE001 - as above
        return f"no summary: {type(err).__name__}"


def _layers(packet: Any) -> list[tuple[str, list[tuple[str, str]]]]:  # Any: a scapy packet
    layers: list[tuple[str, list[tuple[str, str]]]] = []
    budget = MOST_FIELDS
    current = packet
    while current and len(layers) < MOST_LAYERS and type(current).__name__ != "NoPayload":
        fields = []
        for description in current.fields_desc:
            if budget == 0:
                break
            if description.name in HIDDEN and getattr(current, description.name, None) is not None:
                fields.append((description.name, "(hidden)"))
                continue
            try:
                value = description.i2repr(current, getattr(current, description.name))
            except Exception as err:  # noqa: BLE001 - as above
                value = f"({type(err).__name__})"
            if value is None or value == "None":  # a header line or option that this packet does not have
                continue
            budget -= 1
            fields.append((description.name, str(value)[:VALUE_LIMIT]))
        layers.append((str(current.name), fields))
        current = current.payload
    return layers


if __name__ == "__main__":
    sys.exit(_child())
