"""The text of a run is the one that it was trained on, or an error says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from minitx.run.folder import Run
from minitx.run.text import prepared_text, text_tokens, validation_tokens
from minitx.system.errors import UserError
from tests.small import small_config


def test_the_text_of_a_run_is_checked(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    prepared = prepared_text(config)
    run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
    assert prepared_text(config, run, "…").fingerprint == prepared.fingerprint
    np.testing.assert_array_equal(validation_tokens(run), prepared.val)
    (tmp_path / "text.txt").write_text("the cat sat. " * 500)
    with pytest.raises(UserError, match=f"The text that {run.path} learned from has changed since: prune it elsewhere"):
        prepared_text(config, run, "prune it elsewhere")
    with pytest.raises(UserError, match="give a text with --text or --text_file"):
        validation_tokens(run)
    assert prepared_text(config).fingerprint != prepared.fingerprint


def test_any_text_will_do_for_an_imported_run(tmp_path: Path) -> None:
    """It was a KeyError: data.json of an imported run has no fingerprint."""
    config = small_config(tmp_path)
    prepared = prepared_text(config)
    run = Run.create(config.out, config, prepared.tokenizer, {"vocabulary": prepared.tokenizer.vocab_size})
    np.testing.assert_array_equal(validation_tokens(run), prepared.val)


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    long = dataclasses.replace(config, model=dataclasses.replace(config.model, context_length=1_000_000))
    with pytest.raises(UserError, match="context_length"):
        prepared_text(long)


def test_a_given_text_follows_end_of_document(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    prepared = prepared_text(config)
    run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
    tokenizer = run.tokenizer()
    assert text_tokens(run, "the cat").tolist() == [tokenizer.end_of_document, *tokenizer.encode("the cat")]
