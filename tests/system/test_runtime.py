"""Device, precision and threads are chosen once, with a reason."""

from __future__ import annotations

import platform
import sys

import pytest
import torch

from minitx.system.errors import UserError
from minitx.system.memory import keep_freed_memory, memory_bytes
from minitx.system.runtime import choose_device, choose_dtype, choose_runtime, choose_threads, quickest_dtype


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == (torch.device("cpu"), "no GPU found")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto")[0].type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert choose_device("auto") == (torch.device("cuda"), "Some GPU found")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "mps:3", ""])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=f"Device '{name}' is not there: this machine has cpu"):
        choose_device(name)


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("float32", cpu) == (torch.float32, "as set")
    assert choose_dtype("bfloat16", cpu) == (torch.bfloat16, "as set")


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(
    has_it: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.system.runtime.has_fast_bfloat16", lambda: has_it)
    assert quickest_dtype(torch.device("cpu")) is dtype
    assert choose_dtype("auto", torch.device("cpu"))[0] is dtype
    assert choose_dtype("auto", torch.device("mps"))[0] is torch.float32


def test_freed_memory_is_used_again() -> None:
    """Without it every step has its large tensors mapped and cleared by the system, page by page."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        pytest.skip("only GNU's C library is told")
    import resource

    keep_freed_memory()
    faults = []
    for _ in range(16):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20)  # 64 MiB
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults) < 100, faults  # else 16,384 each time


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_threads(3) == (3, "as set")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert choose_threads("auto") == (64, "OMP_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choose_threads("auto") == (8, "more of the 64 cores gain nothing")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert choose_threads("auto") == (4, "one for each core")


def test_autocast_computes_in_the_chosen_precision() -> None:
    x = torch.randn(4, 4)
    for dtype in ("float32", "bfloat16"):
        runtime = choose_runtime("cpu", dtype, "auto", 1)
        with runtime.autocast():
            assert (x @ x).dtype == runtime.dtype == getattr(torch, dtype)


def test_every_choice_is_described_with_its_reason() -> None:
    line = choose_runtime("cpu", "auto", "auto", 1).describe()
    assert line.startswith("device cpu (as set) · precision ")
    assert "compile off (" in line and line.endswith("threads 1 (as set)")


def test_memory_is_counted_in_bytes() -> None:
    assert 50e6 < memory_bytes(torch.device("cpu")) < 1e12
