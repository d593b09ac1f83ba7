"""The page in a real browser: the policy is not violated, the script runs, all without network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.analysis import html
from tests.gateway.analysis.sample_report import HOSTILE, many_rows, sample

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND"),
)


@pytest.fixture(scope="module")
def browser() -> str:
    """The browser that `./build.sh test` installs."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium is missing: apt-get install chromium")
    return found


@pytest.mark.slow
def test_no_violation_and_a_running_script(tmp_path: Path, browser: str) -> None:
    """With every string of the report hostile, the console stays empty and the tables get their sort buttons."""
    page = tmp_path / "report.html"
    page.write_text(html.render(many_rows(sample(HOSTILE), 20)))
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert "<button>Originator</button>" in done.stdout
    assert '<div class="tools">' in done.stdout, "the filter appears once the script runs"


@pytest.mark.slow
def test_findings_that_are_folded_together_are_printed(tmp_path: Path, browser: str) -> None:
    """On paper nothing can be opened: sixty findings of one kind take more pages than three."""
    pages = []
    for count in (3, 60):
        report = sample()
        report["findings"] = many_rows(report, count)["findings"]
        page, paper = tmp_path / f"{count}.html", tmp_path / f"{count}.pdf"
        page.write_text(html.render(report))
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, *FLAGS, profile, f"--print-to-pdf={paper}", page.as_uri()]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        pages.append(len(re.findall(rb"/Type /Page\b(?!s)", paper.read_bytes())))
    assert pages[1] >= pages[0] + 5
