"""What an administrator is, and which names and passwords are accepted. Pure."""

from __future__ import annotations

from typing import Final

from gateway.accounts.passwords import check_password
from gateway.accounts.users import check_name, name_key
from gateway.admin.roles import Role
from gateway.values import value_class

SHORTEST_PASSWORD: Final = 12  # OWASP ASVS 2.1.1
FEWEST_DIFFERENT: Final = 5  # characters; "aaaaaaaaaaaa" is as good as none
RECOVERY_CODES: Final = 10
MAX_ADMINISTRATORS: Final = 100


@value_class
class Administrator:
    """One account. `totp_secret` is None without a second factor."""

    name: str
    role: Role
    password: str  # hash with its cost and salt
    created_unix: float
    disabled: bool = False
    totp_secret: bytes | None = None
    totp_last_step: int = -1
    recovery: tuple[str, ...] = ()  # digests of codes that were not used yet

    @property
    def key(self) -> str:
        """What spellings of the name have in common."""
        return name_key(self.name)


def check_new_name(name: str) -> None:
    """Raises ValueError with a sentence when this cannot be an administrator's name."""
    check_name(name)


def check_new_password(password: str, name: str) -> None:
    """Raises ValueError with a sentence when this is no password for an administrator.

    No rules of kinds of characters: length is what counts (NIST SP 800-63B §5.1.1.2, OWASP ASVS 2.1).
    """
    check_password(password)
    if len(password) < SHORTEST_PASSWORD:
        raise ValueError(
            f"The password has {len(password)} characters; use at least {SHORTEST_PASSWORD}, such as four words."
        )
    if len(set(password.casefold())) < FEWEST_DIFFERENT:
        raise ValueError("The password repeats a few characters; use more different ones, such as four words.")
    if len(name) > 3 and name.casefold() in password.casefold() and len(password) - len(name) < SHORTEST_PASSWORD // 2:
        raise ValueError("The password is hardly more than the name; use something else, such as four words.")
    if password.casefold() in _COMMON:
        raise ValueError("The password is one that everybody tries first; use something else, such as four words.")


# Those of twelve characters and more among the most used; shorter ones are refused for their length.
_COMMON: Final = frozenset(
    {
        "123456789012",
        "1234567890123",
        "password1234",
        "password12345",
        "passwordpassword",
        "administrator",
        "administrator1",
        "adminadmin12",
        "adminadminadmin",
        "qwertyuiop12",
        "qwertyuiop123",
        "qwertyuiopasdfgh",
        "1q2w3e4r5t6y",
        "iloveyou1234",
        "letmeinletmein",
        "changemechangeme",
        "welcome12345",
        "raspberrypi1",
        "openwrtopenwrt",
        "posternpostern",
    }
)
