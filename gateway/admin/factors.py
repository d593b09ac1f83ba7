"""Second factors of administrators: set up with a first code, asked for at each login, used once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from gateway.admin import codes, totp
from gateway.admin.administrators import RECOVERY_CODES, Administrator
from gateway.admin.roster import Roster
from gateway.control.protocol import BAD_PARAMS, CONFLICT, ControlError

BEGUN_S: Final = 600.0  # how long a new secret waits for its first code
ISSUER: Final = "Postern"
EARLIEST_UNIX: Final = 1_735_689_600  # 2025; a clock before that was never set


class SecondFactors:
    """What needs the clock and the secrets. Methods raise ControlError with a sentence."""

    def __init__(self, roster: Roster, clock: Callable[[], float], unix_clock: Callable[[], float]) -> None:
        self._roster = roster
        self._clock = clock
        self._unix = unix_clock
        self.begun: dict[str, tuple[bytes, float]] = {}  # by account: secrets not yet confirmed, with when

    def begin(self, one: Administrator) -> tuple[str, str]:
        """A new secret as text and as otpauth URI; it takes effect when its first code is confirmed."""
        if one.totp_secret is not None:
            raise ControlError(CONFLICT, "There is a second factor already; remove it first.")
        secret = secrets.token_bytes(totp.SECRET_BYTES)
        self.begun[one.key] = secret, self._clock()
        return totp.written(secret), totp.uri(secret, one.name, ISSUER)

    async def confirm(self, one: Administrator, typed: str) -> list[str]:
        """Switch it on, if its app shows the right code; returns the recovery codes, told this once."""
        secret, begun_at = self.begun.get(one.key, (b"", 0.0))
        if not secret or self._clock() - begun_at > BEGUN_S:
            raise ControlError(CONFLICT, "No second factor was begun in the last ten minutes; begin again.")
        step = totp.matching_step(secret, typed, self._unix(), -1)
        if step is None:
            raise ControlError(BAD_PARAMS, self.wrong())
        recovery = [codes.make_code(secrets.token_bytes(codes.RECOVERY_CHARACTERS)) for _ in range(RECOVERY_CODES)]
        await self._roster.set_factor(one, secret, step, tuple(codes.digest(code) for code in recovery))
        self.begun.pop(one.key, None)
        return recovery

    async def remove(self, one: Administrator) -> bool:
        """Switch it off; False when there is none."""
        if one.totp_secret is None:
            return False
        await self._roster.set_factor(one, None, -1, ())
        return True

    def use(self, one: Administrator, secret: bytes, typed: str) -> bool:
        """Whether a code of the app, or a recovery code, is right; it is used up at once."""
        step = totp.matching_step(secret, typed, self._unix(), one.totp_last_step) if self._clock_is_set() else None
        digest = codes.digest(typed)
        if step is not None:
            self._roster.use_up(one, {"totp_last_step": step})
        elif digest in one.recovery:
            self._roster.use_up(one, {"recovery": tuple(code for code in one.recovery if code != digest)})
        else:
            return False
        return True

    def wrong(self) -> str:
        """What to say of a code that is not right."""
        if not self._clock_is_set():
            return "The gateway's clock was never set, so no code of an app can be right; give a recovery code."
        return "The code is wrong or was used already; are the clocks of the phone and the gateway right?"

    def _clock_is_set(self) -> bool:
        return self._unix() >= EARLIEST_UNIX
