"""Models of others as runs: a snapshot of the heads for one step, or for each checkpoint of a training."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minitx.config import Config, Probe, TokenizerConfig
from minitx.data.tales.language import tales
from minitx.data.tokenizer import Tokenizer
from minitx.heads import snapshots
from minitx.heads.view import view_probes
from minitx.interop.hf_import import check_folder, import_folder
from minitx.model import Transformer
from minitx.model_size import parameter_count
from minitx.run import checkpoints, weights
from minitx.run.folder import Run
from minitx.system.errors import require

CHECKPOINT = re.compile(r"(?:step|checkpoint)[-_]?([0-9]{1,12})")
"""The folder of a checkpoint, as the Trainer of transformers and others call it."""
SCORED_TALES = 200
"""Tales that heads are scored on where no text is given: about 30 kB."""


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their steps, in order; raises UserError if there is none."""
    check_folder(folder)
    found = ((CHECKPOINT.fullmatch(inside.name), inside) for inside in folder.iterdir() if inside.is_dir())
    by_step = sorted((int(match[1]), inside) for match, inside in found if match)
    require(bool(by_step), f"{folder} holds no series: its folders must be called checkpoint-500, step500 or the like.")
    return dict(by_step)


def import_run(
    folder: Path,
    out: str,
    context_length: int,
    text: str | None = None,
    *,
    is_series: bool = False,
    folders: dict[int, Path] | None = None,
) -> Run:
    """Make a run of the model in `folder`, or of its checkpoints, or of those in `folders` by step.

    The run sees at most `context_length` tokens. Its heads are scored on `text`. Raises UserError.
    """
    folders = folders or (checkpoint_folders(folder) if is_series else {0: folder})
    model, tokenizer = import_folder(next(iter(folders.values())), folder, context_length)
    config = Config(model=model.config, tokenizer=TokenizerConfig(vocab_size=min(max(300, model.vocab_size), 65536)))
    room = weights.MAX_TOTAL_BYTES // (2 * parameter_count(model.config, model.vocab_size))
    with Run.building(out) as run:
        run.furnish(config, tokenizer, {"vocabulary": tokenizer.vocab_size})
        run_id = snapshots.run_id(run.path) or ""
        for number, (step, checkpoint) in enumerate(folders.items()):
            if number:
                print(f"step {step}", flush=True)
                model, other = import_folder(checkpoint, folder, context_length)
                is_same = model.config == config.model and other.digest == tokenizer.digest
                require(is_same, f"{checkpoint} holds another model or tokenizer than the checkpoint before it.")
            snapshot = head_snapshot(model, tokenizer, step, config.log.read_probes(), text, run_id)
            snapshots.write(run.path, step, snapshot)  # lists the run in the Attention tab
            if step == max(folders):
                checkpoints.save(run.path, model, {}, {"step": step}, best=True, keep=1)
            elif room and number % -(-len(folders) // room) == 0:
                weights.keep(run.path, step, model, run_id)
    return run


def head_snapshot(
    model: Transformer, tokenizer: Tokenizer, step: int, probes: Sequence[Probe], text: str | None, run_id: str = ""
) -> bytes:
    """A snapshot of what the heads do on `probes`, and of their scores on `text`, by default on tales."""
    scored = text or "\n".join(tale.text for tale in itertools.islice(tales("validation", 1), SCORED_TALES))
    view = view_probes(model, tokenizer, probes, np.array(tokenizer.encode(scored), np.uint32))
    return replace(view, scored_on="tales" if text is None else "the given text").snapshot(step, run_id)
