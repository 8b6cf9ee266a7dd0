"""The suite `parallel` with real processes: are its tables whole, and do both sides compute the same?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from minitx.bench import team
from minitx.bench.settings import BenchConfig
from minitx.bench.suites import parallel
from minitx.config import ParallelConfig
from minitx.system.errors import UserError
from minitx.training.launch import joined
from tests.bench.small import TINY, bench
from tests.training.processes import run_processes


@pytest.mark.slow
def test_every_team_measures_every_part() -> None:
    """A part that one team lacked, or a warm-up among the rounds, would spoil the comparison."""
    speed, parts = parallel.run(bench(processes="1,2"))
    assert [row["candidate"] for row in speed.rows] == ["1 × 1", "2 × 1"]
    assert [speed.rows[0][name] for name in ("× by best", "efficiency, %")] == [1, 100]
    assert all(len(laps) == 2 for laps in speed.raw["laps"].values())
    by_several = [team.OURS, team.TORCHS]
    assert [row["part"] for row in parts.rows] == [
        *team.PARTS,
        team.STEP,
        team.EVALUATION,
        team.MUON_ALONE,
        *by_several,
    ]
    for row in parts.rows:
        assert list(row)[1:] == [f"{name}: {kind}" for name in ("1 × 1", "2 × 1") for kind in ("best", "median", "CPU")]
        cells = [cell if isinstance(cell, float) else 0 for cell in list(row.values())[1:]]
        assert [cell > 0 for cell in cells] == [row["part"] not in by_several] * 3 + [True] * 3
    assert all(table.as_text() and json.dumps(table.as_json()) for table in (speed, parts))


def test_both_sides_have_the_same_gradients(tmp_path: Path) -> None:
    """DistributedDataParallel takes means, and sends with the last of several parts alone: a slip would be cheaper."""

    def differ(rank: int) -> bool:
        with joined(ParallelConfig(), "cpu") as group:
            return has_no_gradient(team.Member(bench(processes="2"), TINY, group, 1))  # gone before its group

    def has_no_gradient(member: team.Member) -> bool:
        batches = member.training.batches
        first = batches.state()
        member.gradients()
        batches.restore(first)
        member.backward()
        pairs = zip(member.training.parameters, member.torchs.parameters(), strict=True)
        torch.testing.assert_close(*zip(*((ours.grad, theirs.grad) for ours, theirs in pairs), strict=True))
        return not any(ours.grad.any() for ours in member.training.parameters if ours.grad is not None)

    ends = run_processes(2, differ, tmp_path)
    assert all(end.status == 0 for end in ends), "\n".join(end.errors for end in ends)


def test_every_number_of_processes_divides_the_batch() -> None:
    sixteen = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, batch_size=16))
    assert [parallel.divisible(sixteen, counts).train.batch_size for counts in ([1, 2], [1, 2, 3], [5, 7])] == [
        16,
        18,
        35,
    ]


@pytest.mark.parametrize("processes", ["", "0", "two", "1.5"])
def test_a_wrong_number_of_processes_is_a_sentence(processes: str) -> None:
    with pytest.raises(UserError, match="processes"):
        BenchConfig(processes=processes)
