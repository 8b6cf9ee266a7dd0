"""The state of a training run: older versions load, and a state that does not fit is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.files import checksum, json_bytes, read_json
from minitx.training.session import train
from tests.small import small_config
from tests.training.test_loop import exact_metrics

LOST = ("query_norm", "key_norm")
LOST_AT = (1, 9)
"""Places of these pairs among the vectors: after the first of the four norms of layers 0 and 2."""


def as_older_versions_saved_it(checkpoint: Path, pruned: tuple[int, ...]) -> None:
    """Give layers without heads back their query-key norms, with states of AdamW, which minitx 0.1 kept.

    All matrices were in one group.
    """
    lost = {f"blocks.{layer}.attention.{name}.weight": torch.full((8,), 3.0) for layer in pruned for name in LOST}
    save_file({**load_file(checkpoint / "model.safetensors"), **lost}, checkpoint / "model.safetensors")
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    adamw = saved["optimizers"][-1]
    (*groups, last), state = adamw["param_groups"], adamw["state"]
    matrices, vectors = [number for group in groups for number in group["params"]], last["params"]
    adamw["param_groups"] = [{**groups[0], "params": matrices}, last]
    states = [state.get(number) for number in vectors]  # those of norms without a gradient are None
    for first in LOST_AT:
        states[first:first] = [{"step": torch.tensor(4.0), "exp_avg": torch.ones(8), "exp_avg_sq": torch.ones(8)}] * 2
    numbers = range(len(matrices), len(matrices) + len(states))
    adamw["param_groups"][1]["params"] = list(numbers)
    adamw["state"] = {number: state[number] for number in matrices}
    adamw["state"] |= {number: one for number, one in zip(numbers, states, strict=True) if one}
    torch.save(saved, checkpoint / "optimizer.pt")
    seal(checkpoint)


def seal(checkpoint: Path) -> None:
    """Let the checksums fit the files."""
    content = read_json(checkpoint / "state.json")
    content["checksums"] = {name: checksum(checkpoint / name) for name in content["checksums"]}
    (checkpoint / "state.json").write_bytes(json_bytes(content))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_pruned_run_of_an_older_version_goes_on_exactly(optimizer: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=4, eval_every=4, sample_every=0, optimizer=optimizer)
    model = dataclasses.replace(config.model, n_layer=3, kept_heads=[[], [1], []])
    assert train(dataclasses.replace(config, model=model)) == 0
    run, older = Run(Path(config.out)), Run(Path(config.out + "-older"))
    shutil.copytree(run.path, older.path)
    as_older_versions_saved_it(older.path / "checkpoints" / "step-000004", pruned=(0, 2))
    longer = dataclasses.replace(run.config(), train=dataclasses.replace(config.train, steps=8))
    for path in (run.path, older.path):
        assert train(longer, resume=str(path)) == 0
    assert exact_metrics(older.path) == exact_metrics(run.path)
    weights = [one.checkpoint("last").path / "model.safetensors" for one in (run, older)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_optimizer_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    """The fused AdamW does not look: it wrote past the end of the smaller tensor, and the process crashed."""
    config = small_config(tmp_path, steps=4, eval_every=4, sample_every=0)
    assert train(config) == 0
    checkpoint = Path(config.out) / "checkpoints" / "step-000004"
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    saved["optimizers"][-1]["state"][0]["exp_avg"] = torch.ones(8)
    torch.save(saved, checkpoint / "optimizer.pt")
    seal(checkpoint)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=8))
    with pytest.raises(UserError, match="does not fit this run .*other shapes"):
        train(longer, resume=config.out)
