"""Measures at the end of a run what its verdict needs: see `Figures`. It takes seconds, however long the text."""

import contextlib
import math

import numpy as np
import torch

from minitx.data.baselines import decoded, ngram_bits_per_byte, xz_bits_per_byte
from minitx.data.batches import windows
from minitx.data.builtin import REPEATED_LETTERS
from minitx.data.prepare import Prepared
from minitx.data.stream import Stream
from minitx.heads.kinds import Answers
from minitx.heads.scores import Floats
from minitx.model import next_token_loss
from minitx.model_size import parameters_by_part
from minitx.run.folder import Run
from minitx.run.logs import METRICS_FILE
from minitx.system.errors import UserError
from minitx.system.fields import Fields
from minitx.system.files import json_bytes, read_json, write_atomically
from minitx.training.state import Training, bits_per_byte
from minitx.training.verdict import ORDER, Figures, Yardstick

FEWEST_WINDOWS, MOST_WINDOWS = 16, 256
"""Windows of training text; between the two, about as many tokens as the validation text."""
MOST_TRAIN, MOST_VAL = 2_000_000, 250_000
"""Bytes of text that baselines read: the last ones for training, the first for validation."""
BASELINES_FILE = "baselines.json"
"""In the folder of the prepared text; written once."""


def measure(training: Training, answers: Answers | None) -> Figures:
    """The figures of a finished run; `answers` of one that learns tales."""
    progress, prepared = training.progress, training.prepared
    assert progress.val_loss is not None
    losses, length = training_windows(training)
    batches, of_text = training.batches, progress.tokens / (len(prepared.train) - 1)
    return Figures(
        val_loss=progress.val_loss,
        best_val_loss=progress.best_val_loss,
        best_step=progress.best_step,
        train_loss=float(losses.mean()),
        gap_error=float(losses.std(ddof=1)) * math.sqrt(1 / len(losses) + length / (len(prepared.val) - 1)),
        history=evaluations(training.run),
        epochs=batches.epochs if isinstance(batches, Stream) else of_text,
        tokens_per_parameter=progress.tokens / sum(parameters_by_part(training.model).values()),
        yardstick=yardstick(training, answers),
    )


def evaluations(run: Run) -> list[tuple[int, float]]:
    """(step, validation loss) of every evaluation in metrics.jsonl that can be read."""
    found = []
    for line in run.metrics():
        with contextlib.suppress(UserError):
            fields = Fields(line, METRICS_FILE)
            found.append((fields.whole("step"), fields.number("val_loss")))
    return found


def training_windows(training: Training) -> tuple[Floats, int]:
    """The mean loss of windows spread evenly over the training text, without dropout; and their length in tokens."""
    model, tokens, runtime = training.model, training.prepared.train, training.runtime
    in_val = len(training.prepared.val) - 1
    length = min(model.config.context_length, in_val)  # a shorter window has less context, and so a higher loss
    count = min(max(in_val // length, FEWEST_WINDOWS), MOST_WINDOWS)
    starts, size = (
        np.linspace(0, len(tokens) - 1 - length, count).astype(int).tolist(),
        training.config.train.batch_size,
    )
    losses: list[torch.Tensor] = []
    with torch.inference_mode():
        for first in range(0, count, size):
            inputs, targets = map(runtime.move, windows(tokens, starts[first : first + size], length))
            with runtime.autocast():
                logits = model(inputs)
            losses.append(next_token_loss(logits, targets, "none").view(targets.shape).mean(dim=1).cpu())
    return torch.cat(losses).double().numpy(), length


def yardstick(training: Training, answers: Answers | None) -> Yardstick:
    """What the loss of a run is held against: the entropy of its language where that is known, else baselines."""
    prepared, val_loss = training.prepared, training.progress.val_loss
    if answers is not None:
        return Yardstick(answers.loss, "nats per token", answers.entropy, note=" on whole tales")
    assert val_loss is not None
    scale, unit = bits_per_byte(1, len(prepared.val), prepared.val_bytes), "bits per byte"
    bits = val_loss * scale
    if training.config.data.source == "repeats":
        return Yardstick(bits, unit, entropy_of_repeats(), scale=scale)
    is_cut = prepared.train_bytes > MOST_TRAIN or prepared.val_bytes > MOST_VAL
    note = f" (at most {MOST_TRAIN / 1e6:g} MB of it)" if is_cut else ""
    try:
        xz, ngram = baselines(prepared)
    except UserError:  # too short for an n-gram
        return Yardstick(bits, unit, scale=scale)
    return Yardstick(bits, unit, None, xz, ngram, note, scale)


def baselines(prepared: Prepared) -> tuple[float, float]:
    """Bits per byte of xz and of a byte n-gram on the validation text, after they read the training text.

    They are kept beside the prepared text.
    """
    file, about = prepared.folder / BASELINES_FILE, {"train": MOST_TRAIN, "val": MOST_VAL, "order": ORDER}
    with contextlib.suppress(UserError, OSError):
        kept = Fields(read_json(file), str(file))
        if kept.content.get("about") == about:
            return kept.number("xz"), kept.number("ngram")
    train = decoded(prepared.train[-MOST_TRAIN:], prepared.tokenizer)[-MOST_TRAIN:]  # a token has a byte at least
    val = decoded(prepared.val[: MOST_VAL + 1], prepared.tokenizer)[:MOST_VAL]
    xz, ngram = xz_bits_per_byte(train, val), ngram_bits_per_byte(train, val, ORDER)
    with contextlib.suppress(UserError, OSError):
        write_atomically(file, json_bytes({"about": about, "xz": xz, "ngram": ngram}))
    return xz, ngram


def entropy_of_repeats() -> float:
    """Bits per byte of `repeated_letters`: how many letters, and which; the second time is free."""
    letters, counts = len(REPEATED_LETTERS), range(8, 17)
    bits = [math.log2(len(counts)) + math.log2(math.perm(letters, count)) for count in counts]
    return sum(bits) / sum(2 * count for count in counts)
