"""Files that have much in common stand next to each other, always in the same order."""

from __future__ import annotations

import random
import zlib

from openwrt.order import alike


def text(words: str, seed: int) -> bytes:
    """Ten kilobytes of sentences of these words."""
    chosen = random.Random(seed)
    return " ".join(chosen.choice(words.split()) for _ in range(1500)).encode()


FILES = {
    f"{number}{kind}": text(words, number)
    for number in range(6)
    for kind, words in (
        ("a", " ".join(f"first{n:x}" for n in range(3000, 3400))),
        ("b", " ".join(f"second{n:x}" for n in range(7000, 7400))),
    )
}


def test_files_that_are_alike_stand_together() -> None:
    """Two kinds that take turns by name are two runs, and smaller together."""
    order = alike(FILES)
    assert "".join(name[1] for name in order) in ("aaaaaabbbbbb", "bbbbbbaaaaaa")
    together = zlib.compress(b"".join(FILES[name] for name in order), 9)
    assert len(together) < len(zlib.compress(b"".join(FILES[name] for name in sorted(FILES)), 9))


def test_the_order_is_that_of_the_files_alone() -> None:
    """However they are given: each once, in the same order."""
    backwards = dict(reversed(FILES.items()))
    assert alike(backwards) == alike(FILES)
    assert sorted(alike(FILES)) == sorted(FILES)
    assert alike({}) == []
    assert alike({"b": b"", "a": b""}) == ["a", "b"]
