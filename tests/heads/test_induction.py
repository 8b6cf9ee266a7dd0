"""The whole chain: induction heads form in two layers, the scores show it, and in one layer they do not form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minitx.config.parsing import load_config
from minitx.heads.measure import measure_heads
from minitx.heads.snapshots import open_snapshot
from minitx.run.folder import Run
from minitx.run.logs import HEADS_FILE
from minitx.run.text import validation_tokens
from minitx.training.session import train

CONFIG = Path(__file__).parents[2] / "configs" / "induction.yaml"


def history(folder: Path, n_layer: int, steps: int) -> list[dict[str, Any]]:
    """heads.jsonl of a run of the configuration `induction` with that many layers and steps."""
    config = load_config(CONFIG)
    config = dataclasses.replace(
        config,
        out=str(folder / f"{n_layer}"),
        device="cpu",
        threads=1,
        model=dataclasses.replace(config.model, n_layer=n_layer),
        train=dataclasses.replace(config.train, steps=steps, eval_every=steps, checkpoint_every=steps),
        log=dataclasses.replace(config.log, heads_every=30, snapshots_every=steps),
    )
    assert train(config) == 0
    return Run(Path(config.out)).metrics(HEADS_FILE)


def induction(line: dict[str, Any]) -> np.ndarray:
    return np.array(line["scores"]["induction_on_repeats"])


@pytest.mark.slow
def test_induction_heads_form_in_two_layers_and_not_in_one(tmp_path: Path) -> None:
    two, one = history(tmp_path, 2, steps=300), history(tmp_path, 1, steps=150)
    assert [line["step"] for line in two] == list(range(30, 301, 30))
    by_chance = two[0]["chance"]["induction_on_repeats"]
    assert by_chance < 0.05

    assert induction(two[0]).max() < 3 * by_chance, "there before anything was learned"
    assert induction(two[4]).max() > 5 * by_chance, "not there after as many steps as one layer is given"
    assert induction(two[-1]).max() > 0.5
    assert induction(two[-1])[0].max() < 2 * by_chance, "the first layer has nothing to match with"
    assert induction(two[-1]).max(axis=(0, 1)) > 5 * max(by_chance, induction(one[-1]).max())
    assert max(induction(line).max() for line in one) < 2 * by_chance

    # One verdict: the tab said "unclassified" where `minitx heads` said "induction".
    run = Run(tmp_path / "2")
    with open_snapshot(run.path, 300) as (_, header):
        found = [number for number, role in enumerate(header["roles"]) if role == "induction"]
        assert header["scores"]["induction_on_repeats"] == pytest.approx(induction(two[-1]).ravel(), abs=1e-5)
    model, _ = run.load_model("last", torch.device("cpu"))
    measured = measure_heads(model, validation_tokens(run), ablation=False)
    assert found and found == np.flatnonzero(measured.roles.names.ravel() == "induction").tolist()

    first, second = two[-1]["repeated_loss"]
    assert two[0]["repeated_loss"][1] > 1.5 and second < 0.6 and first > 1.5
    assert one[-1]["repeated_loss"][1] > 2 * second
