"""The commented example of the configuration, with every option, made from the tree itself.

`posternd --example` prints it; the file in `docs/` and the packages' file are this text. Options stand commented out at
their defaults, so that the file says what would happen if it said nothing.
"""

from __future__ import annotations

import textwrap
from dataclasses import MISSING, Field
from typing import Any

from gateway.config_loader import REPEATED, SINGLE, option_fields, option_name, plain
from gateway.control.views import written
from gateway.uci import quote

_HEADER = """\
# Postern's configuration. Every option stands here with its default; remove the # to change one.
# A line is: option NAME 'VALUE', or, once per value, list NAME 'VALUE'.
# posternd --check FILE says what is wrong with a file; postern config reload applies it.
"""
_LINE = 110


def example() -> str:
    """The whole example; it loads once its required options are filled in."""
    parts = [_HEADER]
    for kind, (_, section_class) in SINGLE.items():
        parts.append(_section(kind, "", section_class))
    for kind, (_, section_class) in REPEATED.items():
        parts.append(_section(kind, "guest" if kind == "zone" else "example", section_class, commented=kind != "zone"))
    return "\n".join(parts)


def _section(kind: str, name: str, section_class: type[Any], *, commented: bool = False) -> str:
    mark = "#" if commented else ""
    lines = textwrap.wrap(first_sentence(section_class), _LINE, initial_indent="# ", subsequent_indent="# ")
    lines.append(f"{mark}config {kind}" + (f" '{name}'" if name else ""))
    for item in option_fields(section_class):
        lines.extend(_option(item, section_class, section_commented=commented))
    return "\n".join(lines) + "\n"


def _option(item: Field[Any], section_class: type[Any], *, section_commented: bool) -> list[str]:
    hint = item.metadata
    default = item.default if item.default is not MISSING else None
    shown = written(default)
    several = isinstance(default, tuple) and not hasattr(default, "_fields")
    required = bool(hint["required"])
    value = hint["example"] if required else (shown or hint["example"])
    about = " ".join(filter(None, [hint["doc"], accepted(item), "Required." if required else ""]))
    lines = textwrap.wrap(about, _LINE, initial_indent="\t# ", subsequent_indent="\t# ")
    mark = "#" if section_commented or not required else ""
    words = value.split() if several else [value]
    keyword = "list" if several else "option"
    lines.extend(f"{mark}\t{keyword} {option_name(item)} {quote(word)}" for word in (words or [""]))
    return lines


def accepted(item: Field[Any]) -> str:
    """The range, unit and choices of an option, in words."""
    hint = item.metadata
    if hint["choices"]:
        return f"One of: {', '.join(hint['choices'])}."
    unit = f" {hint['unit']}" if hint["unit"] else ""
    if hint["low"] is not None and hint["high"] is not None:
        return f"From {plain(hint['low'])} to {plain(hint['high'])}{unit}."
    if hint["low"] is not None:
        return f"At least {plain(hint['low'])}{unit}."
    if hint["minimum_length"] > 1:
        return f"At least {hint['minimum_length']} characters."
    return f"In{unit}." if unit else ""


def first_sentence(section_class: type[Any]) -> str:
    """What a section is for, as its class says."""
    text = (section_class.__doc__ or "").split(": ", 1)[-1]
    return text[:1].upper() + text[1:].replace("`", "")
