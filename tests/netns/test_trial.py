"""The client with which a new version of an image proves that its gate works, before the real gate."""

from __future__ import annotations

import sys

import pytest

from tests.netns.harness import Lab
from tests.netns.hotspot import Hotspot

pytestmark = pytest.mark.root
ASK = """\
from gateway.upgrade import trial
try:
    trial._a_client_meets_the_login_page("br-guest")
    print("met")
except trial.Unproved as error:
    print(error)
"""


def test_its_client_meets_the_login_page_and_notices_when_there_is_none() -> None:
    """It gets an address and is redirected; without posternd it says that it gets none, and leaves nothing behind."""
    with Lab("trial") as lab, Hotspot(lab) as hotspot:

        def asked() -> str:
            return lab.run(lab.gateway, [sys.executable, "-c", ASK], timeout_s=60).stdout.strip()

        assert asked() == "met"
        hotspot.stop_daemon()
        assert "udhcpc" in asked()
        assert "trial0" not in lab.run(lab.gateway, ["ip", "link"]).stdout
