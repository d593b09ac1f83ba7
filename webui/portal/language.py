"""The portal's languages: one JSON catalogue per file in `webui/locale`, chosen by Accept-Language (RFC 9110 §12.5.4).

A catalogue maps fixed keys to texts with `{placeholders}`. A language is added by adding a file; a text that it lacks
is taken from English. Numbers, sizes and times are said in the words of the catalogue too.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Final

from gateway.values import value_class

log = logging.getLogger(__name__)

FALLBACK: Final = "en"
_LOCALE_DIR: Final = Path(__file__).parent.parent / "locale"
_RANGE: Final = re.compile(r"([A-Za-z]{1,8}|\*)((?:-[A-Za-z0-9]{1,8})*)(?:\s*;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?")
_MAX_RANGES: Final = 20
_MAX_FIELD: Final = 200  # characters that are looked at, and kept as a key


@value_class
class Language:
    """One language: its code, its own name, its direction of writing (`ltr` or `rtl`), its texts."""

    code: str
    name: str
    direction: str
    texts: Mapping[str, str]

    def say(self, key: str, **values: object) -> str:
        """The text of a key with its placeholders filled in (plain text, not yet escaped)."""
        return self.texts[key].format_map({name: str(value) for name, value in values.items()})

    def size(self, octets: int) -> str:
        """A number of octets for people: `1.4 GB`, in powers of 1000."""
        value, unit = float(octets), "unit_b"
        for bigger in ("unit_kb", "unit_mb", "unit_gb", "unit_tb"):
            if value < 999.5:
                break
            value, unit = value / 1000, bigger
        digits = f"{value:.1f}" if value < 10 and unit != "unit_b" else f"{value:.0f}"
        return self.say(unit, n=digits.replace(".", self.texts["decimal_mark"]))

    def rate(self, bps: int) -> str:
        """A rate for people: `4.5 Mbit/s`."""
        value, unit = bps / 1000, "unit_kbit"
        for bigger in ("unit_mbit", "unit_gbit"):
            if value < 999.5:
                break
            value, unit = value / 1000, bigger
        digits = f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}"
        return self.say(unit, n=digits.replace(".", self.texts["decimal_mark"]))

    def duration(self, seconds: float) -> str:
        """A time for people, in its two largest units: `2 h 5 min`."""
        minutes, rest_s = divmod(int(seconds), 60)
        hours, rest_min = divmod(minutes, 60)
        days, rest_h = divmod(hours, 24)
        if days:
            parts = [("time_d", days), ("time_h", rest_h)]
        elif hours:
            parts = [("time_h", hours), ("time_min", rest_min)]
        elif minutes >= 10:
            parts = [("time_min", minutes)]
        elif minutes:
            parts = [("time_min", minutes), ("time_s", rest_s)]
        else:
            return self.say("time_s", n=rest_s)
        return " ".join(self.say(key, n=n) for key, n in parts if n)


class Languages:
    """All catalogues of a directory."""

    def __init__(self, directory: Path = _LOCALE_DIR, own: Iterable[tuple[str, str, str]] = ()) -> None:
        """Read every `*.json`; raises OSError or ValueError for a file that is not a catalogue.

        `own` are the operator's sentences: language, key, text. What does not fit stays as it is here, with a line in
        the log. A language whose sentences of the operator are in Arabic or Hebrew is written from right to left.
        """
        trees = {path.stem: _read(path) for path in sorted(directory.glob("*.json"))}
        english = dict(trees[FALLBACK])
        theirs: dict[str, str] = {}
        for code, key, text in own:
            why_not = why_unfit(english, key, text) if code in trees else "there is no such language"
            if why_not:
                log.warning("text left as it is language=%s key=%s reason=%s", code, key, why_not)
            else:
                trees[code][key] = text
                theirs[code] = theirs.get(code, "") + text
        for code, text in theirs.items():
            if _is_right_to_left(text):
                trees[code]["_direction"] = "rtl"
        self._languages = {
            code: Language(code, tree["_name"], tree["_direction"], {**english, **tree}) for code, tree in trees.items()
        }
        self._chosen = lru_cache(maxsize=256)(self._choose)

    @property
    def all(self) -> tuple[Language, ...]:
        """Every language, in the order of the codes."""
        return tuple(self._languages.values())

    def get(self, code: str) -> Language | None:
        """The language of a code, if there is one."""
        return self._languages.get(code)

    def choose(self, accept_language: str) -> Language:
        """The best language for an Accept-Language field; English when nothing fits or the field is nonsense."""
        return self._chosen(accept_language[:_MAX_FIELD])

    def _choose(self, accept_language: str) -> Language:
        best, best_quality = self._languages[FALLBACK], 0.0
        for item in accept_language.split(",")[:_MAX_RANGES]:
            match = _RANGE.fullmatch(item.strip())
            if match is None:
                continue
            quality = float(match[3]) if match[3] else 1.0
            primary = match[1].lower()
            full = primary + match[2].lower()
            language = self._languages.get(full) or self._languages.get(primary)
            if language is not None and quality > best_quality:
                best, best_quality = language, quality
        return best


def why_unfit(english: Mapping[str, str], key: str, text: str) -> str:
    """Why a text cannot take the place of the catalogue's, in a sentence; empty when it can."""
    if key not in english or key.startswith("_"):
        return f"{key!r} is not the name of a text"
    try:
        used = list(Formatter().parse(text))
    except ValueError:
        return "a brace stands alone; write {{ or }} for a brace that is to be seen"
    names = {field for _, field, _, _ in used if field is not None}
    known = {field for _, field, _, _ in Formatter().parse(english[key]) if field is not None}
    if names - known or any(form or conversion for _, _, form, conversion in used):
        wanted = ", ".join(f"{{{name}}}" for name in sorted(known)) or "none"
        return f"its placeholders are not those of this text: {wanted}"
    return ""


def _is_right_to_left(text: str) -> bool:
    """Whether more letters of a text are written from right to left than from left to right (Unicode Annex 9)."""
    kinds = [unicodedata.bidirectional(char) for char in text]
    return sum(kind in ("R", "AL") for kind in kinds) > kinds.count("L")


def _read(path: Path) -> dict[str, str]:
    tree = json.loads(path.read_text("utf-8"))
    if not isinstance(tree, dict) or not all(isinstance(value, str) for value in tree.values()):
        raise ValueError(f"{path}: a catalogue is one JSON object of texts")
    if tree.get("_direction") not in ("ltr", "rtl") or not tree.get("_name"):
        raise ValueError(f"{path}: _name and _direction (ltr or rtl) are required")
    return tree
