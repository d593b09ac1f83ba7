"""Loading the seal's program: what the kernel says to it, and to whom. The rest is in `tests/netns`."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from gateway.datapath import seal
from gateway.datapath.program import seal_program
from gateway.datapath.ruleset import sealed_mark
from gateway.datapath.seal import load, why_not

CODE = seal_program(sealed_mark("br-guest"))


def test_a_machine_whose_call_numbers_are_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is guessed: another call would be made."""
    monkeypatch.setattr(seal, "_CALL_NUMBERS", {})
    with pytest.raises(OSError, match=r"no number of bpf\(2\)") as caught:
        load(CODE)
    assert caught.value.errno == errno.ENOSYS
    assert why_not().startswith("no number of bpf(2)")


@pytest.mark.root
def test_the_kernel_takes_it_and_nothing_broken() -> None:
    """It loads as it is; without its end the verifier refuses it, in words."""
    os.close(load(CODE))
    assert why_not() == ""
    with pytest.raises(OSError, match=r"bpf\(2\): "):
        load(CODE[:-8])


@pytest.mark.root
@pytest.mark.parametrize(("kept", "said"), [("+net_admin,+bpf", ""), ("+net_admin", "Operation not permitted")])
def test_it_needs_two_capabilities(kept: str, said: str) -> None:
    """NET_ADMIN and BPF load it; without BPF there is a reason that people can read."""
    words = ["setpriv", "--reuid=65534", "--clear-groups", f"--bounding-set=-all,{kept}"]
    words += [f"--inh-caps=-all,{kept}", f"--ambient-caps=-all,{kept}"]
    script = "from gateway.datapath.seal import why_not; print(why_not())"
    done = subprocess.run([*words, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(said)
    assert bool(done.stdout.strip()) is bool(said)
