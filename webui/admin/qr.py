"""QR codes as SVG (ISO/IEC 18004), made by segno: the only module that imports it."""

from __future__ import annotations

from typing import Final

from webui.admin.render import Markup

MAX_CHARACTERS: Final = 500


def qr_svg(text: str, label: str) -> Markup:
    """A QR code of a text as an inline image that scales, with a name for screen readers.

    Raises ValueError for a text that is too long to be scanned from a slip of paper.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a QR code of {len(text)} characters is not readable on paper")
    import segno  # here: a megabyte that only who prints needs

    code = segno.make_qr(text, error="m")
    matrix = code.matrix
    side = len(matrix) + 8  # four modules of quiet zone on each side
    # One path of horizontal runs: a sheet has hundreds of these.
    runs: list[str] = []
    for y, row in enumerate(matrix):
        start = None
        for x, dark in enumerate((*row, 0)):
            if dark and start is None:
                start = x
            elif not dark and start is not None:
                runs.append(f"M{start + 4} {y + 4}h{x - start}v1h-{x - start}z")
                start = None
    safe = "".join(char for char in label if char not in "<>&\"'")
    return Markup(
        f'<svg class="qr" role="img" aria-label="{safe}" viewBox="0 0 {side} {side}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{side}v{side}H0z"/><path fill="#000" d="{"".join(runs)}"/></svg>'
    )
