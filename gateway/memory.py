"""How this process keeps its memory small: the allocator's settings, and giving back what the start needed.

glibc only; other C libraries (musl on OpenWrt) have no such settings and need none of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import sys
from types import ModuleType
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_M_ARENA_MAX: Final = -8
_MAPPED_FROM_BYTES: Final = 256 << 10


def keep_small() -> None:
    """Have large blocks mapped and unmapped one by one; to be called before any thread is started.

    Left alone, glibc moves its threshold up to the size of the first large block that is freed: hashing one password
    takes 16 MB for a tenth of a second, and from the second password on they would never be given back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        mallopt(_M_ARENA_MAX, 1)


class _NoTls(ModuleType):
    """Stands for `ssl` while the event loops are imported, which look for its errors and numbers and keep them."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0 if name.isupper() else type(name, (Exception,), {})


def import_loops_without_tls() -> None:
    """Import asyncio and uvloop without `ssl`: 4 MB for connections that the daemon does not make.

    To be called before anything else imports asyncio; afterwards it does nothing. Whoever imports `ssl` later gets it.
    """
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = _NoTls("ssl")
    try:
        importlib.import_module("asyncio")
        with contextlib.suppress(ImportError):  # armhf and OpenWrt have no build of it
            importlib.import_module("uvloop")
    finally:
        del sys.modules["ssl"]


def collect_later() -> None:
    """Let the collector rest until `give_back`: a start makes much that stays, and would be walked again and again."""
    gc.disable()


def give_back() -> None:
    """Collect garbage, keep what lives out of further collections, and return free pages to the system.

    What the start made lives as long as the process; the collector need not walk it again.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    _trim()


def tidy() -> None:
    """Collect garbage and return free pages after a busy time; a few milliseconds once `give_back` was called."""
    gc.collect()
    _trim()


def _trim() -> None:
    """Return pages that the allocator keeps because something behind them is still in use."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
