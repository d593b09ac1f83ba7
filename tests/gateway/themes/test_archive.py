"""Zip archives as people and attackers pack them."""

from __future__ import annotations

import contextlib
import io
import random
import stat
import zipfile

import pytest

from gateway.themes.archive import ThemeError, read_archive
from gateway.themes.contract import MAX_ARCHIVE_BYTES, MAX_FILES

SHEET = b"p { color: #123 }"


def packed(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive with these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return out.getvalue()


def test_a_theme_is_read_with_and_without_a_folder_around_it() -> None:
    """As people pack it; what their systems add is left out."""
    assert read_archive(packed(("style.css", SHEET))) == {"style.css": SHEET}
    mac = packed(("mine/style.css", SHEET), ("__MACOSX/mine/._style.css", b"x"), ("mine/.DS_Store", b"x"))
    assert read_archive(mac) == {"style.css": SHEET}
    assert read_archive(packed(("style.css", SHEET), ("LICENSE.txt", b"free"))) == {"style.css": SHEET}


@pytest.mark.parametrize(
    "name",
    [
        "../style.css",
        "/etc/style.css",
        "a/../../style.css",
        "..\\style.css",
        "C:style.css",
        "a/b/style.css",
        ".htaccess",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(name: str) -> None:
    """Nothing is ever written outside; it is not even tried."""
    with pytest.raises(ThemeError):
        read_archive(packed((name, SHEET)))


def test_links_are_refused() -> None:
    """A symbolic link would show another file."""
    link = zipfile.ZipInfo("style.css")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ThemeError, match="link"):
        read_archive(packed((link, b"/etc/passwd")))


def test_two_files_of_one_name_are_refused() -> None:
    """Whichever was meant, the other would be a surprise."""
    with pytest.raises(ThemeError, match="twice"):
        read_archive(packed(("style.css", SHEET), ("Style.css", SHEET)))
    with pytest.raises(ThemeError, match="several folders"):
        read_archive(packed(("a/style.css", SHEET), ("b/layout.html", SHEET)))


def test_bombs_are_refused_before_they_grow() -> None:
    """By ratio, by size, by number."""
    with pytest.raises(ThemeError, match="tightly"):
        read_archive(packed(("style.css", bytes(600_000))))
    with pytest.raises(ThemeError, match="at most"):
        read_archive(packed(("style.css", bytes(5_000_000))))
    with pytest.raises(ThemeError, match="files"):
        read_archive(packed(*((f"a{number}.txt", b"x") for number in range(MAX_FILES + 1))))
    with pytest.raises(ThemeError, match="at most"):
        read_archive(bytes(MAX_ARCHIVE_BYTES + 1))


def test_a_directory_that_lies_about_sizes_does_not_help() -> None:
    """The content is read against the bound, whatever the archive's directory says."""
    data = bytearray(packed(("style.css", bytes(600_000))))
    size = (600_000).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(ThemeError):
        read_archive(bytes(data))


def test_every_problem_is_said_at_once() -> None:
    """Whoever mends a theme need not upload it once for each."""
    with pytest.raises(ThemeError) as caught:
        read_archive(packed(("style.css", b"@import 'x';"), ("layout.html", b"<script>")))
    assert "style.css" in str(caught.value)
    assert "layout.html" in str(caught.value)


def test_noise_is_no_archive() -> None:
    """Whatever is uploaded, the answer is a sentence."""
    dice = random.Random(7)
    whole = packed(("style.css", SHEET), ("logo.svg", b"<svg/>"))
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        with contextlib.suppress(ThemeError):  # any other exception fails the test
            read_archive(bytes(broken[: dice.randrange(1, len(broken) + 1)]))
