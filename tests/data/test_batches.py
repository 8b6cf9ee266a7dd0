"""Batches: every window of an epoch comes once, and a resumed run continues in the same order."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.batches import RESIDENT_SHARE, Batches, resident, validation_windows
from minitx.system.errors import UserError


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 7), st.integers(0, 2**63 - 1))
def test_an_epoch_sees_every_token_once(count: int, context_length: int, batch_size: int, seed: int) -> None:
    tokens = np.arange(count, dtype=np.uint16)
    if count <= context_length:
        with pytest.raises(UserError, match="at least"):
            Batches(tokens, context_length, batch_size, seed)
        return
    batches = Batches(tokens, context_length, 1, seed)
    times: Counter[int] = Counter()
    while batches.state()["epoch"] == 0:
        inputs, targets = batches.next()
        assert (targets == inputs + 1).all()
        if batches.state()["epoch"] == 0:
            times.update(inputs.flatten().tolist())
    first = min(times)
    assert set(times.values()) == {1}
    assert sorted(times) == list(range(first, first + len(times)))
    assert first < context_length
    assert count - 1 - context_length < first + len(times) <= count - 1
    whole = Batches(tokens, context_length, batch_size, seed)
    single = Batches(tokens, context_length, 1, seed)
    for _ in range(5):
        inputs, targets = whole.next()
        assert inputs.shape == targets.shape == (batch_size, context_length)
        for row in inputs:
            assert (row == single.next()[0][0]).all()


def test_batches_differ_by_epoch_and_seed_and_resume_exactly() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    batches = Batches(tokens, 16, 8, seed=5)
    states, drawn = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(batches.state())))
        drawn.append(batches.next()[0])
    assert len({state["epoch"] for state in states}) > 3
    assert len({tuple(batch[:, 0].tolist()) for batch in drawn}) == 40
    assert not (Batches(tokens, 16, 8, seed=6).next()[0] == drawn[0]).all()
    for state, batch in zip(states, drawn, strict=True):
        resumed = Batches(tokens, 16, 8, seed=5)
        resumed.restore(state)
        assert (resumed.next()[0] == batch).all()
    with pytest.raises(UserError, match="position 9999"):
        batches.restore({"epoch": 0, "position": 9999})


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 100), st.integers(1, 20), st.integers(1, 5))
def test_validation_targets_every_token_once(count: int, context_length: int, batch_size: int) -> None:
    tokens = np.arange(count, dtype=np.uint16)
    targets: list[int] = []
    for inputs, shifted in validation_windows(tokens, context_length, batch_size):
        assert inputs.shape[0] <= batch_size
        assert inputs.shape[1] <= context_length
        assert (shifted == inputs + 1).all()
        targets += shifted.flatten().tolist()
    assert targets == list(range(1, count))


def test_a_device_that_keeps_the_tokens_cuts_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(500, dtype=np.uint16)
    usual = Batches(tokens, 16, 8, seed=5)
    monkeypatch.setattr(
        "minitx.data.batches.resident", lambda tokens, device: torch.from_numpy(tokens.astype(np.int32)).to(device)
    )
    kept = Batches(tokens, 16, 8, seed=5, device=torch.device("cpu"))
    for _ in range(10):  # over two epochs
        for a, b in zip(usual.next(), kept.next(), strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b) and b.is_contiguous()


def test_tokens_are_kept_on_a_gpu_with_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(500, dtype=np.uint16)
    assert resident(tokens, None) is None and resident(tokens, torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 4 * 500 * RESIDENT_SHARE - 1))
    assert resident(tokens, torch.device("cuda")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 500 * 2 - 1, 1e9))
    assert resident(tokens, torch.device("cuda")) is None
    if torch.cuda.is_available():
        monkeypatch.undo()
        kept = resident(tokens, torch.device("cuda"))
        assert kept is not None and kept.is_cuda and kept.tolist() == tokens.tolist()
