"""Look into the heads of a loaded run: patterns and outputs as tensors, scores, the Attention tab."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.heads import measure, snapshots
from minitx.heads.measure import HeadMeasurements
from minitx.heads.places import run_probes
from minitx.heads.record import Scored, score_text, scored_text
from minitx.heads.repeats import score_repetition
from minitx.heads.view import text_snapshot, view_probes
from minitx.library.cell import Page
from minitx.library.loaded_run import LoadedRun, check_text
from minitx.run.folder import Run
from minitx.system.errors import require
from minitx.tensorboard.plugin.page import page


@dataclass(frozen=True, eq=False)
class Look:
    """What every head does on one text, in float32 on the CPU. A pruned head has NaN."""

    tokens: list[str]
    """(seq): the text of each token, with ␣ for a space and ↵ for a new line."""
    patterns: Tensor
    """(layer, head, query, key): how each token divides its attention; a row sums to 1, and a later key has 0."""
    values: Tensor
    """(layer, head, key, d_head): what each token offers to a head. Grouped heads have the same values; latent
    attention unfolds them from its latent."""
    head_outputs: Tensor
    """(layer, head, query, d_head): the values mixed by the pattern; side by side they enter the output projection."""
    logits: Tensor
    """(seq, vocab_size): the prediction of the token after each."""

    def __repr__(self) -> str:
        return f"Look(patterns {tuple(self.patterns.shape)}, head_outputs {tuple(self.head_outputs.shape)})"


def record(run: LoadedRun, text: str) -> Look:
    """Run the model on `text` and keep what its heads do; raises UserError for a text that does not fit the context.

    >>> look = minitx.record(run, "the cat")
    >>> look.patterns.shape, look.head_outputs.shape  # (layer, head, seq, seq) and (layer, head, seq, d_head)
    (torch.Size([2, 2, 7, 7]), torch.Size([2, 2, 7, 8]))
    >>> torch.allclose(look.patterns @ look.values, look.head_outputs, atol=1e-6)
    True
    """
    model, config, recorder = run.model, run.model.config, Recorder()
    ids = _fitting(run, text)
    with torch.no_grad():
        tokens = torch.tensor([ids], device=model.embedding.weight.device)  # (1, seq)
        logits = model(tokens, heads=HeadAccess(recorder=recorder))[0]  # (seq, vocab_size)

    def collect(parts: dict[int, Tensor], width: int) -> Tensor:
        """(layer, head, seq, width) of what each layer recorded, (1, head, seq, width)."""
        whole = torch.full((config.n_layer, config.n_head, len(ids), width), torch.nan)
        for layer, part in parts.items():
            heads = config.heads_in(layer)
            whole[layer, heads] = part[0].float().cpu().repeat_interleave(len(heads) // part.size(1), dim=0)
        return whole

    return Look(
        tokens=run.tokenizer.token_labels(ids),
        patterns=collect(recorder.patterns, len(ids)),
        values=collect(recorder.values, config.d_head),
        head_outputs=collect(recorder.head_outputs, config.d_head),
        logits=logits.float().cpu(),
    )


def _fitting(run: LoadedRun, text: str) -> list[int]:
    """The tokens of `text`; raises UserError unless there are some and the context has room for them."""
    check_text(text)
    tokens, longest = run.tokenizer.encode(text), run.model.config.context_length
    require(len(tokens) > 0, f"The text {text!r} has no tokens: give some.")
    fault = f"The text has {len(tokens)} tokens, but this model sees {longest} at once: give a shorter one."
    require(len(tokens) <= longest, fault)
    return tokens


def score_heads(run: LoadedRun, text: str | None = None) -> Scored:
    """What each head attends to, on `text` or the validation split: scores, chance and roles (docs/heads.md).

    `scores` has an array (layer, head) for each name. "importance" is how fast the loss changes, in nats per token, as
    the head is turned down. `role_names()` are as in the Attention tab. A pruned head has NaN.

    >>> scored = minitx.score_heads(run)
    >>> scored.scores["induction"].shape, scored.role_names()[0][0]
    ((2, 2), 'unclassified')
    """
    tokens = run.tokens(text)
    texts, repeats = scored_text(run.model, tokens), score_repetition(run.model, tokens, only_induction=True)
    return score_text(run.model, texts, importance_tokens=texts.size(1)).judged_on(repeats.induction, repeats.chance)


def measure_heads(run: LoadedRun, text: str | None = None, *, ablation: bool = True) -> HeadMeasurements:
    """All of `minitx heads RUN` on `text` or the validation split; raises UserError for a pruned run.

    `ablation` holds the change of the loss, in nats per token, without each head: arrays (layer, head). It takes the
    longest, and False leaves it out.

    >>> measured = minitx.measure_heads(run, "the cat sat on a mat")
    >>> measured.ablation.zero.shape, measured.copying.shape
    ((2, 2), (2, 2))
    """
    name = run.folder.path if run.folder else "This model"
    only = "and only whole models are measured here: name the run that it was pruned from"
    require(run.model.config.kept_heads is None, f"{name} is a pruned run, {only}.")
    return measure.measure_heads(run.model, run.tokens(text), ablation=ablation)


def snapshot(run: LoadedRun, text: str | None) -> bytes:
    """What every head attends to in `text` and scores on it; raises UserError for a text longer than the context.

    Without a text it has the run's probes, with scores on validation text, as while training.
    """
    if text is not None:
        return text_snapshot(run.model, run.tokenizer, [(text, _fitting(run, text))], run.step)
    validation = run.tokens()
    folder = cast(Run, run.folder)
    probes = run_probes(folder.config())
    require(bool(probes), f"{folder.path} has no probes: give a text.")
    return view_probes(run.model, run.tokenizer, probes, validation).snapshot(run.step)


def show(run: LoadedRun, text: str | None = None, *, view: str = "", height: int = 720) -> Page:
    """The Attention tab of `text`, or of the run's probes, for a notebook's cell; elsewhere `save` it.

    view: what the page opens with, as the tab's Link writes it after "#". height: of the cell, in pixels. Raises
    UserError for a text that does not fit the context.

    >>> minitx.show(run, "the cat sat", view="view=sentence").save("sentence.html")
    """
    title = run.folder.path.name if run.folder else "model"
    return Page(page([snapshot(run, text)], title=title, view=view), height)


def write_snapshot(run: LoadedRun, texts: str | Sequence[str], folder: str | Path, step: int | None = None) -> None:
    """Write what every head attends to in `texts`, or in one, for the Attention tab.

    `tensorboard --logdir` finds the folder. Called at several steps it makes a film, also in a training loop of your
    own. Every call must have the same texts. step: by default that of the run. Raises UserError for texts that do not
    fit, and for the folder of a trained run.

    >>> for step in (8, 12):
    ...     minitx.write_snapshot(minitx.load("runs/small", step), ["the cat sat", "rain fell"], "runs/film")
    """
    folder, texts = snapshots.own_folder(folder), [texts] if isinstance(texts, str) else texts
    require(len(texts) > 0, "There is no text to show: give at least one.")
    step = run.step if step is None else snapshots.whole_step(step)
    content = text_snapshot(run.model, run.tokenizer, [(text, _fitting(run, text)) for text in texts], step)
    folder.mkdir(parents=True, exist_ok=True)
    snapshots.write(folder, step, content)
