"""Verdicts on made-up figures, the figures behind them by hand, and a small study from end to end."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minitx.config import Config, DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from minitx.data.tales.tale import KINDS
from minitx.heads.places import held_out_tales
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.studies import claims, claims_runs
from minitx.studies.claims_runs import PROJECTION, Figures, HeadFigures, as_read, claim_variants, fix_output_projections
from minitx.studies.claims_tried import Study, both_readings, overlaps, removable, top_share, tried_claims
from minitx.studies.claims_verdicts import FAILS, HOLDS, UNDECIDED, Claim, Evidence
from minitx.studies.comparison import train_trial
from minitx.studies.pruning_curve import Curve
from minitx.system.errors import UserError

MODEL = ModelConfig(n_layer=2, n_head=4, d_model=128)


@pytest.mark.parametrize(
    ("values", "limit", "verdict"),
    [
        ([0.9, 1.0, 1.1], 0.0, HOLDS),
        ([0.9, 1.0, 1.1], 0.9, UNDECIDED),  # the mean lies 0.1 above, 2 standard errors are 0.115
        ([0.9, 1.0, 1.1], 0.88, HOLDS),
        ([0.9, 1.0, 1.1], 1.2, FAILS),
        ([-0.1, 0.0, 0.1], 0.0, UNDECIDED),
        ([0.0, 0.0, 0.0], 0.5, FAILS),  # equal counts have no spread
        ([9.0], 0.0, UNDECIDED),  # one seed has no standard error
    ],
)
def test_evidence_needs_two_standard_errors(values: list[float], limit: float, verdict: str) -> None:
    assert Evidence("", values, limit).verdict == verdict


def test_a_claim_needs_all_its_evidence() -> None:
    good, bad, none = Evidence("", [1, 1.1]), Evidence("", [-1, -1.1]), Evidence("", [1, -1])
    for evidence, verdict in (([good], HOLDS), ([good, none], UNDECIDED), ([good, none, bad], FAILS)):
        assert Claim("a", "", "", evidence).verdict == verdict


def heads(effect: float) -> HeadFigures:
    """Heads of which the first of layer 0 has a name and more of every kind's drop, the larger the effect.

    It and the second attend to one reading each, above control by 0.1 + effect / 20.
    """
    drops = {kind: [[0.3 + effect / 5, 0.1, 0.1, 0.1], [0.1] * 4] for kind in KINDS}
    names: list[list[list[str]]] = [[["place"] if effect > 0 else [], [], [], []], [[], [], [], []]]
    reading = 0.1 + effect / 20
    return HeadFigures(drops, drops, names, [[[reading, 0, 0, 0], [0] * 4], [[0, reading, 0, 0], [0] * 4]])


def made_up(effects: tuple[float, ...]) -> Study:
    """Figures of the full plan in which every claim has an effect of this size, one for each seed."""
    results = {}
    for name, model in claim_variants(MODEL, is_short=False).items():
        is_better = model.n_head not in (1, 64) and name != PROJECTION
        better = 2 if name in ("grouped_query", "multi_query", "latent") else is_better
        for seed, effect in enumerate(effects, 1):
            above = 1 - 0.2 * better * effect
            accuracy, both = 1 - above / 2, (heads(effect), heads(-effect))
            losses = [-1.0, -1.0 if effect > 0 else -0.5, *[-0.4] * 7]
            curve = Curve({}, {"greedy": losses}, [], [losses, [-1.0, *[-0.4] * 8]])
            unprojected = {"all": [above + effect / 5, accuracy - effect / 10]}
            by_kind = dict.fromkeys(KINDS, accuracy)
            results[name, seed] = Figures(
                9, 8, 2 + above, above, accuracy, by_kind, {}, *both, curve, 0.01, unprojected
            )
    return Study(results, range(1, 1 + len(effects)), MODEL)


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [((1, 1.1, 0.9), HOLDS), ((-1, -1.1, -0.9), FAILS), ((1, -1, 0.1), UNDECIDED), ((1,), UNDECIDED)],
)
def test_every_claim_reaches_every_verdict(effects: tuple[float, ...], verdict: str) -> None:
    tried = [*tried_claims(made_up(effects))]
    assert [claim.name[0] for claim in tried] == [*"aaabcdefggghh"]
    assert {claim.name: claim.verdict for claim in tried} == {claim.name: verdict for claim in tried}


def test_what_training_decides_is_said_in_short_sentences() -> None:
    (claim,) = [claim for claim in tried_claims(made_up((1, 1.1, 0.9))) if claim.name == "f"]
    sentences = re.split(r"(?<=\.) (?=[A-Z])", claim.note)
    assert len(sentences) == 3 and all(len(sentence.split()) <= 25 for sentence in sentences)


def test_the_best_head_count_is_chosen_by_other_seeds() -> None:
    """Chosen by its own seed, the luckiest of equal counts would always beat both ends."""
    study = made_up((0, 0, 0))
    noise = np.random.default_rng(0)
    results = {
        trial: dataclasses.replace(figures, above=1 + noise.normal() / 100) for trial, figures in study.results.items()
    }
    (claim,) = [claim for claim in tried_claims(dataclasses.replace(study, results=results)) if claim.name == "b"]
    assert claim.verdict != HOLDS


def test_figures_of_heads_by_hand() -> None:
    """One top head has 0.5 of 1.2; a head that attends to both readings alike serves neither by itself."""
    figures = heads(1)
    assert top_share(figures) == pytest.approx(0.5 / 1.2)
    assert both_readings(figures) == pytest.approx(0.15)
    alike = dataclasses.replace(figures, readings=[[[0.5, 0, 0, 0], [0] * 4]] * 2)
    apart = dataclasses.replace(figures, readings=[[[0.5, 0, 0, 0], [0] * 4], [[0] * 4, [0.5, 0, 0, 0]]])
    assert both_readings(alike) <= 0 and both_readings(apart) <= 0  # two layers are not at once
    assert removable(np.array([[[0.9, 0.8, 0.9, 0.5]]]), np.array([[[0.89]]])) == [2]
    same, any_head = overlaps([[["name"], ["place"], []]], [[["name", "time"], [], ["place"]]])
    assert (same, any_head) == pytest.approx((1 / 6, (1 / 2 + 1) / 9))


def test_both_readings_of_an_ambiguous_word(tmp_path: Path) -> None:
    """The watcher is named first; the two readings point at the two people, whichever the tale goes on with."""
    found = 0
    for tale in held_out_tales(tale_config(tmp_path), 300):
        for first, second in zip(as_read(tale, 0).labels, as_read(tale, 1).labels, strict=True):
            watcher, watched = (tale.text[slice(*label.target)] for label in (first, second))
            assert f"The {watcher} saw the {watched} with a " in tale.text
            found += 1
    assert found >= 5


def test_fixed_output_projections_stay_the_identity() -> None:
    model = Transformer(MODEL, 30)
    fix_output_projections(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    model(torch.arange(20)[None]).logsumexp(dim=-1).sum().backward()
    before = model.blocks[0].get_parameter("attention.value.weight").clone()
    optimizer.step()
    assert torch.equal(model.blocks[1].get_parameter("attention.output.weight"), torch.eye(128))
    assert not torch.equal(model.blocks[0].get_parameter("attention.value.weight"), before)


def tale_config(folder: Path, **data: Any) -> Config:
    """A run of seconds on tales."""
    return Config(
        out=str(folder / "claims"),
        device="cpu",
        dtype="float32",
        threads=1,
        data=DataConfig(source="tales", max_documents=200, **data),
        tokenizer=TokenizerConfig(type="word", vocab_size=832),
        model=ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=96),
        train=TrainConfig(steps=3, batch_size=2, eval_every=3, checkpoint_every=3),
    )


@pytest.mark.slow
def test_a_killed_study_goes_on_and_trains_no_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after training the second run, before its figures are written; table, JSON and runs agree at the end."""
    config, measure = tale_config(tmp_path), claims_runs.measure
    trained: list[str] = []

    def killed(variant: str, *rest: Any) -> Figures:
        if variant == PROJECTION:
            raise KeyboardInterrupt
        return measure(variant, *rest)

    def counted(trial: Config, *rest: Any) -> int:
        trained.append(Path(trial.out).name)
        return train_trial(trial, *rest)

    monkeypatch.setattr(claims, "claim_variants", lambda model, _: {"2 layers 2 heads": model, PROJECTION: model})
    monkeypatch.setattr(claims, "TALES", 200)
    monkeypatch.setattr("minitx.training.kind_log.ASKED_LAST", 10)
    monkeypatch.setattr("minitx.training.kind_log.ASKED", 10)
    monkeypatch.setattr(claims_runs, "train_trial", counted)
    monkeypatch.setattr(claims_runs, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        claims.claims(config, 2, True, "minitx claims")
    monkeypatch.setattr(claims_runs, "measure", measure)
    assert claims.claims(config, 2, True, "minitx claims") == 0
    runs = [f"{name}-seed-{seed}" for seed in (1337, 1338) for name in ("2-layers-2-heads", "identity-projection")]
    assert trained == runs

    folder = tmp_path / "claims"
    content = Run(folder).read_json("claims.json")["claims"]
    rows = (folder / "claims.md").read_text("utf-8").split("\n| ")
    table = {cells[0].strip(): cells for cells in (row.split(" | ") for row in rows) if len(cells) == 6}
    assert [claim["name"] for claim in content] == ["c", "d", "e", "f", "h", "h, never trained"]
    for claim in content:
        cells = table[claim["name"]]
        assert cells[3].strip() == claim["measured"] and cells[5].strip(" |\n").startswith(claim["verdict"])
    losses = [Run(folder).read_json(f"{run}.json")["above"] for run in runs]  # usual, never projected, by seed
    assert content[-1]["evidence"][0]["values"] == pytest.approx([losses[1] - losses[0], losses[3] - losses[2]])
    assert (folder / "claims.png").read_bytes().startswith(b"\x89PNG")


def test_other_texts_are_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(tale_config(tmp_path), data=DataConfig())
    with pytest.raises(UserError, match="data.source is python-docs"):
        claims.claims(config, 1, True, "")
