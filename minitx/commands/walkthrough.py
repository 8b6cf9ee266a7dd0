"""`minitx walkthrough RUN --text …`: one attention layer step by step, with real numbers, each step checked.

Also shows that one word in two contexts has one embedding and two vectors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.system.errors import require
from minitx.system.files import check_page_name, writing

TEXT = "The animal was too tired."
CONTEXTS = ("They crossed the river to the bank.", "They took the money to the bank.")


def main(arguments: Sequence[str], prog: str) -> int:
    """Show the layer that the command line names; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("run", metavar="RUN", nargs="?", help="Run folder; by default the newest one.")
    parser.add_argument("--text", type=str, default=TEXT, help="Text to attend over.")
    parser.add_argument("--layer", type=int, default=0, help="Layer, counted from 0.")
    parser.add_argument("--head", type=int, default=0, help="Head whose numbers are shown, counted from 0.")
    parser.add_argument("--token", type=int, help="Token whose row is shown, counted from 0; by default the last.")
    parser.add_argument("--html", type=str, metavar="FILE", help="Write one self-contained page instead.")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, last, or a step of the run.")
    parser.add_argument("--word", type=str, default="bank", help="Word that is compared in two contexts.")
    parser.add_argument("--contexts", type=str, nargs=2, default=list(CONTEXTS), help="Two texts with the word.")
    options = parse_plain(parser, arguments)
    require(options.text != "", "The text is empty: give some words.")
    if options.html is not None:
        check_page_name(options.html)

    import torch

    from minitx.heads.contexts import compare_contexts
    from minitx.heads.walkthrough import walk
    from minitx.heads.walkthrough_page import as_html, as_text
    from minitx.run.folder import Run

    run = Run.find(options.run)
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    tokenizer = run.tokenizer()
    tokens = tokenizer.encode(options.text)
    require(
        options.token is None or 0 <= options.token < len(tokens),
        f"There is no token {options.token}: the text has tokens 0 to {len(tokens) - 1}.",
    )
    labels = [tokenizer.token_text(token) for token in tokens]
    walked = walk(model, tokens, labels, options.layer, options.head, options.token)
    contexts = compare_contexts(model, tokenizer, options.word, tuple(options.contexts))
    if options.html is None:
        print(as_text(walked, contexts))
        return 0
    page = as_html(walked, f"Attention, step by step: {run.path.name}, {checkpoint}", contexts)
    with writing(options.html):
        Path(options.html).write_text(page, "utf-8")
    print(f"page in {options.html}", file=sys.stderr)
    return 0
