"""What a finding means and what to do about it, in words for the person who has to act.

The key is a finding's `advice`; where it has no text of its own the text of the nearest shorter key is used
(`tcp.loss.burst`, `tcp.loss`, `tcp`).
"""

from __future__ import annotations

from typing import Final

ADVICE: Final[dict[str, str]] = {
    "tcp": "A TCP connection did not run as it should. Follow its packets with --flow, or in the ladder of the report.",
}


def advice_for(key: str) -> str:
    """The explanation for an advice key; empty if there is none."""
    while key:
        if key in ADVICE:
            return ADVICE[key]
        key = key.rpartition(".")[0]
    return ""
