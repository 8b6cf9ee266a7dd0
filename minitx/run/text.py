"""The text that a run learned from, as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minitx.config import Config
from minitx.system.errors import require

if TYPE_CHECKING:
    from minitx.data.prepare import Prepared
    from minitx.data.token_files import Tokens
    from minitx.run.folder import Run


def prepared_text(config: Config, run: Run | None = None) -> Prepared:
    """The tokenized text; for a resumed run with its tokenizer, and as it was where it came from the Hub."""
    from minitx.data.prepare import check_length, prepare

    prepared = prepare(
        config.data,
        config.tokenizer,
        config.seed,
        progress=True,
        tokenizer_model=run.tokenizer() if run else None,
        cached_folder=run.read_json("data.json").get("prepared") if run else None,
    )
    check_length(prepared, config.model.context_length)
    return prepared


def text_tokens(run: Run, text: str) -> Tokens:
    """End of document and the tokens of `text`, as in a corpus; raises UserError where it is too short."""
    import numpy as np

    tokenizer = run.tokenizer()
    return np.array([tokenizer.end_of_document, *tokenizer.encode(text)], dtype=np.uint32)


def validation_tokens(run: Run) -> Tokens:
    """The run's validation split, from the cache or its source; raises UserError where that is another text now."""
    from minitx.data.prepare import prepare

    config = run.config()
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True, tokenizer_model=run.tokenizer())
    if (run.path / "data.json").is_file():
        require(
            run.read_json("data.json")["fingerprint"] == prepared.fingerprint,
            f"The text that {run.path} learned from has changed since: give a text with --text or --text_file.",
        )
    return prepared.val
