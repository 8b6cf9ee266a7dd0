"""`minitx heads RUN --examples`: where in validation text each head attends most sharply, with the words around."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from minitx.heads import examples_file, snapshots
from minitx.heads.examples_file import Examples, as_text, head_examples
from minitx.system.files import step_of

if TYPE_CHECKING:
    from minitx.run.folder import Run
    from minitx.system.runtime import Runtime


def show_examples(run: Run, options: Any, runtime: Runtime) -> int:
    """Print the examples of every head; the exit status."""
    examples = stored_or_found(run, options.checkpoint, runtime)
    if options.json:
        heads = [head_examples(examples, head) for head in range(len(examples.of_heads))]
        layout = {"layers": examples.layers, "heads_in_a_layer": examples.heads}
        print(json.dumps({"run": str(run.path), "step": examples.step, **layout, "heads": heads}, ensure_ascii=False))
        return 0
    scanned = f"{len(examples.tokens):,} tokens of validation text, {examples.window} at once"
    print(f"{run.path}, step {examples.step}, in {scanned}: the weight from a [query] to its «key»\n")
    print(as_text(examples))
    return 0


def stored_or_found(run: Run, checkpoint: str, runtime: Runtime) -> Examples:
    """The newest examples that the run has stored; without any, or for another checkpoint than best, its own."""
    stored = examples_file.steps(run.path)
    if stored and checkpoint == "best":
        return examples_file.read(run.path, stored[-1])

    from minitx.heads.examples import SCANNED_TOKENS, find_examples
    from minitx.run.text import validation_tokens

    model, name = run.load_model(checkpoint, runtime.device)
    about = step_of(name), snapshots.run_id(run.path) or ""
    return find_examples(model, run.tokenizer(), validation_tokens(run), SCANNED_TOKENS, *about)
