"""Heads of models of `transformers` in the Attention tab while they are trained by others."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minitx.heads import snapshots
from minitx.interop.attention_logger import AttentionLogger
from minitx.system.errors import UserError
from tests.heads.test_snapshots import read_patterns
from tests.tensorboard.test_plugin import application, ask

transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

from tests.interop.foreign import VOCABULARY, save_tokenizer, small_qwen  # noqa: E402  (after the skip)

PROBES = ["The cat didn't see the dog.", "a naïve hat"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    save_tokenizer(tmp_path / "tokenizer")
    return transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


def trained(log: Any, tokenizer: Any, steps: int = 2) -> Any:
    """A model after some steps of a plain loop with dropout, which calls `log` before each."""
    model = small_qwen().train()
    model.config.attention_dropout = 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(1)
    for step in range(steps):
        log(model, tokenizer, step)
        tokens = torch.randint(0, VOCABULARY, (2, 16))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_a_loop_of_others_is_watched_and_left_as_it_is(tokenizer: Any, tmp_path: Path) -> None:
    """Building a model draws random numbers, which would change the training that is watched."""
    logger = AttentionLogger(tmp_path / "runs" / "theirs", probes=PROBES)
    model = trained(logger, tokenizer)
    alone = trained(lambda *_: None, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))
    assert model.training and logger.refusal is None
    logger(model, tokenizer, 2)
    assert snapshots.steps(logger.path) == [0, 1, 2]

    # The patterns are those that transformers computes.
    content = snapshots.path(logger.path, 2).read_bytes()
    model.eval().set_attn_implementation("eager")
    for number, text in enumerate(PROBES):
        with torch.no_grad():
            theirs = model(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions
        expected = torch.stack(theirs)[:, 0].numpy()  # (layer, head, query, key)
        np.testing.assert_allclose(read_patterns(content, number), expected, atol=5e-3)

    # The tab serves them, with scores that changed while the model learned.
    tab = application("--logdir", str(tmp_path / "runs"))
    assert json.loads(ask(tab, "runs").data)["runs"] == ["theirs"]
    answer = json.loads(ask(tab, "run", run="theirs").data)
    assert answer["steps"] == [0, 1, 2] and answer["newest"]["probes"][0]["text"] == PROBES[0]
    assert answer["newest"]["scored_on"] == "tales" and answer["fault"] in ("", None)
    scores = json.loads(ask(tab, "scores", run="theirs", name="induction").data)["values"]
    assert len(scores) == 3 and scores[0] != scores[2]
    assert ask(tab, "snapshot", run="theirs", step=2, probe=1).status_code == 200


def llama(**settings: Any) -> Any:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2, **settings))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_head=2, n_layer=1)), "type 'gpt2'"),
        (lambda: llama(attention_bias=True), "sets attention_bias to True, but minitx has only false"),
        (lambda: llama(hidden_act="gelu"), "sets hidden_act to 'gelu'"),
    ],
)
def test_what_minitx_cannot_hold_is_named_once(
    model: Any, sentence: str, tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logger, theirs = AttentionLogger(tmp_path / "runs"), model()
    for step in range(3):
        logger(theirs, tokenizer, step)
    assert logger.refusal is not None and sentence in logger.refusal
    assert capfd.readouterr().err.count(sentence) == 1
    assert not (tmp_path / "runs").exists()


def test_without_a_fast_tokenizer_nothing_is_logged(tmp_path: Path) -> None:
    logger = AttentionLogger(tmp_path / "runs")
    logger(small_qwen(), None, 0)
    assert "needs a fast tokenizer" in str(logger.refusal)


def test_a_trained_run_keeps_its_snapshots_and_no_step_ends_a_training(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "data.json").touch()
    with pytest.raises(UserError, match="is a trained run"):
        AttentionLogger(tmp_path)
    with pytest.raises(UserError, match="no text to show"):
        AttentionLogger(tmp_path / "a", probes=[])
    logger = AttentionLogger(tmp_path / "a")
    logger(small_qwen(), tokenizer, "20")  # type: ignore[arg-type]
    assert "step is '20'" in str(logger.refusal)
    logger = AttentionLogger(tmp_path / "a")
    logger(tokenizer, small_qwen(), 0)
    assert "came where the model should be" in str(logger.refusal)


def test_a_wrapped_model_is_unwrapped_and_a_full_disk_stops_nothing(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    logger = AttentionLogger(tmp_path / "file" / "runs", probes=["cat"], text="the cat sat on the mat " * 9)
    wrapped = torch.nn.Module()
    wrapped.module = small_qwen()
    logger(wrapped, tokenizer, 0)
    assert "Not a directory" in str(logger.refusal)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="the Trainer needs accelerate")
def test_the_trainer_of_transformers(tokenizer: Any, tmp_path: Path) -> None:
    logger = AttentionLogger(tmp_path / "runs", probes=["cat"])
    tokens, tokenizer.pad_token = torch.arange(16), "<|endoftext|>"
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=5, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_steps=2
    )
    trainer = transformers.Trainer(
        small_qwen(),
        arguments,
        train_dataset=[{"input_ids": tokens, "labels": tokens}] * 20,
        processing_class=tokenizer,
        callbacks=[logger.callback(every=2)],
    )
    trainer.train()
    assert logger.refusal is None and snapshots.steps(logger.path) == [0, 2, 4, 5]
    # What it saved is a series.
    from minitx.interop.series import import_run

    run = import_run(tmp_path / "out", str(tmp_path / "series"), 64, is_series=True)
    assert snapshots.steps(run.path) == [2, 4, 5]
    for step in (2, 4):
        logged, imported = (snapshots.path(path, step).read_bytes() for path in (logger.path, run.path))
        assert len(read_patterns(logged)) and len(read_patterns(imported))
