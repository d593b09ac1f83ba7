"""Users and devices by the thousand: the web process is sent a page and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.webui.admin.fake_world import NOW
from tests.webui.admin.visitor import admin, logged_in
from tests.webui.wire import run


@pytest.mark.parametrize("what", ["users", "devices"])
def test_ten_thousand_rows_are_shown_a_page_at_a_time(tmp_path: Path, what: str) -> None:
    """What the daemon is asked for has a limit, whatever is searched or sorted."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.users = [{"username": f"user{n:05}", "note": "", "created_unix": NOW} for n in range(10_000)]
            fake.world.devices = [
                {
                    "zone": "guests",
                    "mac": f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",
                    "username": f"user{n:05}",
                    "method": "password",
                    "since_unix": NOW + n,
                    "until_unix": NOW + 86400,
                }
                for n in range(10_000)
            ]
            logged_in(fake, visitor)
            page = await visitor.get(f"/{what}")
            assert page.text.count('<th scope="row"') == 50
            assert "10\u202f000 " in page.text
            assert len(page.body) < 100_000
            second = await visitor.get(f"/{what}?page=200&sort=username&down=1")
            assert "user00000" in second.text
            found = await visitor.get(f"/{what}?search=user0123")
            assert found.text.count('<th scope="row"') == 10
            for call in fake.called(f"{what}.list"):
                assert call["limit"] == 50
            if what == "users":
                assert "user00042" in (await visitor.get("/users/user00042")).text
                assert fake.called("users.list")[-1] == {"username": "user00042"}
                assert (await visitor.get("/users/nobody")).status == 404

    run(story())
