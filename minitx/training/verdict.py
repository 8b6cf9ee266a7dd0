"""Whether a loss is good: what the figures of a finished run say in plain words, and the setting to change first.

Pure functions of `Figures`. The rules are few and in `advise`; where the figures do not decide, they say so.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from minitx.config import Config, TrainConfig

ORDER = 5
"""Bytes of the n-gram that a loss is held against."""
NOTICEABLE = 0.01
"""Share of a loss; a smaller change counts as none."""
OVERFITTING = 0.05
"""Share of the validation loss by which the training text must be easier to count as learned by heart."""
LATE = 0.8
"""Share of the steps after which a loss that no longer falls is level."""
NEAR = 0.05
"""Share of the entropy; a loss no further above it leaves little to learn."""
ENOUGH_TOKENS = 20
"""Training tokens per parameter after which a larger model pays more than more steps (Hoffmann et al. 2022)."""
FAR = 20
"""Times the default; a learning rate further above or below it is suspected first."""
FEW_STEPS = 50
"""Steps below which a run is too short to judge."""
DROPOUT = 0.2
"""The most that is advised against overfitting, half of it first."""


class Yardstick(NamedTuple):
    """What the loss is held against, all in `unit`."""

    loss: float
    unit: str
    entropy: float | None = None
    """The least loss possible, where the language is known."""
    xz: float | None = None
    ngram: float | None = None
    """What `xz -9e` and a byte n-gram need for the same text; see `data.baselines`."""
    note: str = ""
    """How much of the text these two read, if not all; of a known language, on what the loss is."""
    scale: float = 1.0
    """Times a loss in nats per token, for the same in `unit`."""

    @property
    def is_poor(self) -> bool:
        """Whether counting bytes does better."""
        return self.ngram is not None and self.loss > self.ngram


@dataclass(frozen=True)
class Figures:
    """What a finished run measured; losses in nats per token."""

    val_loss: float
    best_val_loss: float
    best_step: int
    train_loss: float
    """On windows spread over the training text, without dropout."""
    gap_error: float
    """Standard error of `val_loss` - `train_loss`, from the spread over windows."""
    history: list[tuple[int, float]]
    """(step, validation loss) of every evaluation, in order."""
    epochs: float
    tokens_per_parameter: float
    yardstick: Yardstick

    @property
    def has_learned(self) -> bool:
        """Whether the loss on training text beats counting bytes, as far as known; a short text's halves may differ."""
        ngram = self.yardstick.ngram
        return ngram is None or self.yardstick.loss * self.train_loss < ngram * self.val_loss

    @property
    def overfits(self) -> bool:
        """Whether the training text is easier than chance explains, is known well, and was read twice."""
        least = max(2 * self.gap_error, OVERFITTING * self.val_loss)
        return self.epochs >= 2 and self.has_learned and self.val_loss - self.train_loss > least

    @property
    def rose(self) -> bool:
        """Whether the validation loss ended above its lowest."""
        return self.val_loss > (1 + NOTICEABLE) * self.best_val_loss

    @property
    def late(self) -> tuple[int, float] | None:
        """The step of the last evaluation in the first `LATE` of the steps, and the fall since then, if known."""
        last = self.history[-1][0] if self.history else 0
        before = [(step, loss) for step, loss in self.history if step <= LATE * last]
        return (before[-1][0], before[-1][1] - self.val_loss) if before else None

    @property
    def is_level(self) -> bool:
        """Whether the validation loss no longer falls, as far as known."""
        return self.late is not None and self.late[1] < NOTICEABLE * self.val_loss


class Advice(NamedTuple):
    """A setting worth changing first, by its name in YAML, with a value to try."""

    setting: str
    now: float
    value: float
    why: str


def verdict(figures: Figures, config: Config) -> tuple[list[str], dict[str, Any]]:
    """The sentences for a person, and everything as plain data for summary.json."""
    advice = advise(figures, config)
    facts = [goodness(figures.yardstick), reading(figures), gap(figures), curve(figures)]
    sentences = [line for line in (*facts, recommendation(figures, advice, config.train.steps)) if line]
    measured = dataclasses.asdict(figures)
    yardstick = figures.yardstick._asdict()
    return sentences, {
        **{name: measured[name] for name in ("train_loss", "gap_error", "epochs", "tokens_per_parameter")},
        **{name: yardstick[name] for name in ("entropy", "xz", "ngram")},
        "advice": None if advice is None else advice._asdict(),
        "sentences": sentences,
    }


def advise(figures: Figures, config: Config) -> Advice | None:
    """The setting most worth changing; None where the figures decide for none. The first rule that fits counts."""
    train, model, yardstick = config.train, config.model, figures.yardstick
    if train.steps < FEW_STEPS:
        return None
    has_learned_before = config.init_from is not None or model.kept_heads is not None
    rates = ["muon_learning_rate", "learning_rate"][train.optimizer == "adamw" :]
    if figures.overfits:
        if figures.rose and 2 * figures.best_step <= train.steps:
            why = "validation was best there; more text would help more"
            return Advice("train.steps", train.steps, figures.best_step, why)
        value = DROPOUT / 2 if model.dropout < DROPOUT / 2 else DROPOUT
        if figures.rose and model.dropout < value:
            return Advice("model.dropout", model.dropout, value, "it makes learning by heart harder")
        return None  # dropout and fewer steps make a loss worse that has not risen yet
    if figures.rose:
        now = getattr(train, rates[0])
        return Advice(f"train.{rates[0]}", now, float(f"{now / 3:.1g}"), "the loss rose, but not by overfitting")
    if yardstick.entropy is not None and yardstick.loss < (1 + NEAR) * yardstick.entropy:
        return None
    for rate in rates:
        now, usual = getattr(train, rate), getattr(TrainConfig, rate)
        if yardstick.is_poor and not has_learned_before and not usual / FAR < now < usual * FAR:
            return Advice(f"train.{rate}", now, usual, "this is far from the default")
    if figures.tokens_per_parameter < ENOUGH_TOKENS and not figures.is_level:
        more = train.steps * (4 if yardstick.is_poor else 2)
        fell = ", and its loss still fell" if figures.late is not None else ""
        return Advice("train.steps", train.steps, more, f"it read fewer than {ENOUGH_TOKENS} tokens a parameter{fell}")
    if not has_learned_before:  # else its shape is given
        more = max(model.n_layer + 1, model.n_layer * 3 // 2)
        return Advice("model.n_layer", model.n_layer, more, "more steps would bring this model little")
    return None


def goodness(yardstick: Yardstick) -> str:
    """The loss beside what it is held against; empty where there is nothing."""
    loss = f"Is {yardstick.loss:.3f} {yardstick.unit}"
    if yardstick.entropy is not None:
        best, above = yardstick.entropy, yardstick.loss / yardstick.entropy - 1
        return f"{loss}{yardstick.note} good? The best possible is {best:.3f}; this is {above:.0%} above it."
    if yardstick.xz is None or yardstick.ngram is None:
        return ""
    beaten = [name for name, bits in (("xz", yardstick.xz), ("the n-gram", yardstick.ngram)) if yardstick.loss < bits]
    answer = f"better than {' and '.join(beaten)}" if beaten else "worse than both"
    return (
        f"{loss} good? For the same text{yardstick.note} xz -9e needs {yardstick.xz:.3f}, a byte {ORDER}-gram "
        f"{yardstick.ngram:.3f}: the model is {answer}."
    )


def reading(figures: Figures) -> str:
    """How much the model read."""
    times = f"{amount(figures.epochs)} times (epochs)" if figures.epochs else "less than once"
    tokens = amount(figures.tokens_per_parameter)
    return f"The model read its training text {times}, {tokens} tokens for each parameter."


def gap(figures: Figures) -> str:
    """Training beside validation text."""
    apart = figures.val_loss - figures.train_loss
    if figures.overfits:
        learned = "learned" if figures.rose else "begins to learn"
        what = f"it {learned} its text by heart (overfitting)"
    elif apart > max(2 * figures.gap_error, NOTICEABLE * figures.val_loss):
        again = "a little overfitting" if figures.has_learned else "it has learned too little to overfit"
        what = again if figures.epochs >= 2 else "no overfitting, for it read its text fewer than 2 times"
    else:
        what = "no overfitting"
    unit, scale = figures.yardstick.unit, figures.yardstick.scale
    train, val = figures.train_loss * scale, figures.val_loss * scale
    return f"Loss is {train:.3f} {unit} on training text, {val:.3f} on validation text: {what}."


def curve(figures: Figures) -> str:
    """Where the validation loss was going; empty where that is not known."""
    unit, scale = figures.yardstick.unit, figures.yardstick.scale
    if figures.rose:
        best = f"lowest at step {figures.best_step} ({figures.best_val_loss * scale:.3f} {unit}) and rose since"
        return f"Validation loss was {best}; generating uses the weights of that step."
    if figures.late is None:
        return ""
    step, fall = figures.late
    if figures.is_level:
        return f"Since step {step} validation loss has hardly changed."
    fell = f"Since step {step} validation loss fell by {fall * scale:.3f} {unit}"
    return f"{fell}, also because the learning rate falls to 0."


def recommendation(figures: Figures, advice: Advice | None, steps: int) -> str:
    """The advice as a sentence, for a run of so many steps."""
    if steps < FEW_STEPS:
        return f"No setting is advised after so few steps ({steps}): from {FEW_STEPS} on there is advice."
    if advice is None:
        return "No setting will help much; more text would." if figures.overfits else "No setting stands out."
    return f"Worth changing first: {advice.setting} to {advice.value} (now {advice.now}): {advice.why}."


def amount(number: float) -> str:
    """A positive number with two digits or more, such as 0.38, 4.2 or 130."""
    digits = 1 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:,.{min(max(digits, 0), 6)}f}"
