"""The text of a run as tokens: prepared for training, or a text that a person gives."""

import numpy as np

from minitx.config import Config
from minitx.data.prepare import Prepared, check_length, prepare
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.text import warn


def prepared_text(
    config: Config, run: Run | None = None, remedy: str = "", tokenizer: Tokenizer | None = None
) -> Prepared:
    """The text that `config` names, split and tokenized, by `tokenizer` if one is given.

    With `run`, its tokenizer is used, and Hub data comes from the cache while the cache still has it. Raises UserError,
    which ends in `remedy`, where the text is no longer the one that the run learned from. An imported run has none, so
    another stands in for it, and a warning says which.
    """
    if run and run.about("fingerprint") is None:
        warn(f"{run.path} was imported without a text: {config.data.source} (its data.source) stands in for it.")
    tokenizer, cached = run.tokenizer() if run else tokenizer, run.about("prepared") if run else None
    prepared = prepare(
        config.data, config.tokenizer, config.seed, progress=True, tokenizer_model=tokenizer, cached_folder=cached
    )
    if run and run.about("fingerprint") not in (None, prepared.fingerprint):
        raise UserError(f"The text that {run.path} learned from has changed since: {remedy}.")
    if run and run.about("val_fingerprint") not in (None, prepared.val_fingerprint):
        raise UserError(f"{run.path} validates on another part of its text than before: restore its data settings.")
    check_length(prepared, config.model.context_length)
    return prepared


def validation_tokens(run: Run) -> Tokens:
    """The validation split of the run's text; raises UserError where the text has changed."""
    return prepared_text(run.config(), run, "give a text with --text or --text_file").val


def text_tokens(run: Run, text: str) -> Tokens:
    """End of document and the tokens of `text`, as in a corpus; raises UserError for a lone surrogate."""
    tokenizer = run.tokenizer()
    return np.array([tokenizer.end_of_document, *tokenizer.encode(text)], dtype=np.uint32)
