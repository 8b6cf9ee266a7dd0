"""`minitx export` of a run without an architecture in transformers. The rest is in tests/test_end_to_end.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.config import ModelConfig
from minitx.training.session import train
from tests.small import small_config


def test_latent_attention_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path, steps=1, sample_every=0)
    model: ModelConfig = dataclasses.replace(config.model, attention="latent")
    assert train(dataclasses.replace(config, model=model)) == 0
    capsys.readouterr()
    assert main(["export", config.out, str(tmp_path / "exported")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The model has latent attention, which neither Llama") and error.count("\n") == 1
    assert not (tmp_path / "exported").exists()
