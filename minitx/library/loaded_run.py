"""A run for use from Python: load or train it, write text with it, measure its loss."""

import dataclasses
import operator
import re
import reprlib
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minitx.attention import HeadAccess
from minitx.config import Config, GenerateConfig
from minitx.config.parsing import load_config
from minitx.data.batches import validation_windows
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.generation.generate import complete
from minitx.model import Transformer, next_token_loss
from minitx.run.folder import Run
from minitx.run.text import validation_tokens
from minitx.system.errors import UserError, require
from minitx.system.files import step_of
from minitx.system.runtime import choose_device
from minitx.training import session

SAMPLING = GenerateConfig()
"""The defaults of `LoadedRun.generate`: those of generate.py."""


@dataclass(frozen=True, repr=False, eq=False)
class LoadedRun:
    """A model and its tokenizer, from a run folder or of your own making, as in LoadedRun(model, tokenizer)."""

    model: Transformer
    tokenizer: Tokenizer
    step: int = 0
    """Optimizer updates that the model has seen."""
    folder: Run | None = None
    """With `path`, `config()`, `metrics()` and `heads()` of the run; None for a model without one."""

    def __repr__(self) -> str:
        config, name = self.model.config, self.folder.path if self.folder else "a model"
        return f"LoadedRun({name}, step {self.step}: {config.n_layer} layers of {config.n_head} heads)"

    def generate(
        self,
        prompt: str | None = None,
        *,
        max_new_tokens: int = SAMPLING.max_new_tokens,
        temperature: float = SAMPLING.temperature,
        top_k: int | None = SAMPLING.top_k,
        top_p: float | None = SAMPLING.top_p,
        min_p: float | None = SAMPLING.min_p,
        repetition_penalty: float = SAMPLING.repetition_penalty,
        stop: str | Sequence[str] = (),
        seed: int = SAMPLING.seed,
    ) -> str:
        """The text that follows `prompt`, or a new document without one; the same for the same seed.

        The options are those of generate.py. Raises UserError for one that cannot work, FloatingPointError where the
        model's logits are not finite.

        >>> run.generate("the cat", max_new_tokens=20) == run.generate("the cat", max_new_tokens=20)
        True
        """
        if prompt is not None:
            check_text(prompt)
        options = GenerateConfig(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop if isinstance(stop, str) else list(stop),
            seed=seed,
        )
        return complete(self.model, self.tokenizer, prompt, options)[0].completion

    def tokens(self, text: str | None = None) -> Tokens:
        """(seq): end of document and the tokens of `text`, or the validation split of the run without a text.

        Raises UserError for an empty text, and where there is no split or its text has changed.

        >>> len(run.tokens("the cat"))  # a character each
        8
        """
        if text is not None:
            check_text(text)
            require(text != "", "The text is empty: give some, or leave it out to take the run's validation split.")
            return np.array([self.tokenizer.end_of_document, *self.tokenizer.encode(text)], dtype=np.uint32)
        return self._validation

    @cached_property
    def _validation(self) -> Tokens:
        if self.folder is None:
            raise UserError("A model without a run folder has no validation text: give a text.")
        return validation_tokens(self.folder)

    @torch.inference_mode()
    def loss(self, text: str | None = None, *, without: Iterable[tuple[int, int]] | tuple[int, int] = ()) -> float:
        """Nats per token on `text`, of any length, or on the validation split; heads in `without` are switched off.

        without: (layer, head) of each, or of one, by their numbers before pruning; they write nothing into the
        residual. Raises UserError for a head that the model does not have.

        >>> run.loss("the cat sat", without=[(1, 0)]) != run.loss("the cat sat")
        True
        """
        config, tokens, device = self.model.config, self.tokens(text), self.model.embedding.weight.device
        gates = torch.ones(config.n_layer, config.n_head, device=device)
        for layer, head in as_pairs(without):
            is_layer = 0 <= layer < config.n_layer
            here = config.heads_in(layer) if is_layer else []
            heads = f"heads {', '.join(map(str, here))}" if here else "no heads"
            at = f"layer {layer} has {heads}" if is_layer else f"the last layer is {config.n_layer - 1}"
            require(head in here, f"There is no head {layer}.{head}: {at}.")
            gates[layer, head] = 0
        total = 0.0
        for inputs, targets in validation_windows(tokens, config.context_length, batch_size=8):
            logits = self.model(inputs.to(device), heads=HeadAccess(gates))
            total += float(next_token_loss(logits, targets.to(device), "sum"))
        return total / (len(tokens) - 1)


def check_text(text: object) -> None:
    """Raise UserError unless `text` is a string."""
    require(isinstance(text, str), f"The text is {reprlib.repr(text)}, but it must be a string.")


def as_pairs(heads: Any) -> list[tuple[int, int]]:
    """(layer, head) of each of `heads`, or of one given bare; raises UserError for anything else."""
    try:
        given = [*heads]
        pairs = [given] if given and not hasattr(given[0], "__len__") else given
        return [(operator.index(layer), operator.index(head)) for layer, head in pairs]
    except (TypeError, ValueError) as error:
        raise UserError(f"without is {reprlib.repr(heads)}, but it takes (layer, head) of each head.") from error


def load(path: str | Path | None = None, checkpoint: str | int = "best", device: str = "auto") -> LoadedRun:
    """The run in the folder `path`, by default the newest in runs/.

    checkpoint: best, last, or a step that the run keeps, weights alone included. device: auto, cpu, cuda or mps. Raises
    UserError where it is missing or damaged.

    >>> minitx.load("runs/small", checkpoint="last").step
    12
    """
    run = Run.find(None if path is None else str(path))
    model, name = run.load_model(str(checkpoint), choose_device(device)[0])
    return LoadedRun(model, run.tokenizer(), step_of(name), run)


def read_config(file: str | Path) -> Config:
    """The settings in a YAML file, such as those in configs/; raises UserError for what cannot work.

    >>> minitx.read_config("runs/small/config.yaml").model.n_head
    2
    """
    return load_config(Path(file))


def train(config: Config) -> LoadedRun:
    """Train a new run in the folder `config.out`, or in -2, -3 … of it, and load the best checkpoint.

    It seeds torch's random numbers and sets its threads, as train.py does. Ctrl-C saves a checkpoint and raises
    KeyboardInterrupt, a second one ends Python; `train.py --resume RUN` goes on. Raises UserError for what cannot work.

    >>> longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=15))
    >>> minitx.train(longer)  # prints what train.py prints
    device cpu (as set)...
    LoadedRun(runs/small-2, step 15: 2 layers of 2 heads)
    """
    before = _runs_called(config.out)
    status = session.train(config)
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt("training was stopped, and its checkpoint is saved")
    if status:
        raise SystemExit(status)

    def is_anothers(path: Path) -> bool:
        """Whether another process began this run meanwhile."""
        settled = Run(path).config()
        return dataclasses.replace(settled, out=config.out, threads=config.threads, dtype=config.dtype) != config

    return load(min(sorted(_runs_called(config.out) - before), key=is_anothers), device=config.device)


def _runs_called(out: str) -> set[Path]:
    """The run folders `out`, `out`-2, `out`-3 …"""
    path = Path(out)
    name = re.compile(rf"{re.escape(path.name)}(-[0-9]+)?")
    folders = path.parent.iterdir() if path.parent.is_dir() else ()
    return {folder for folder in folders if name.fullmatch(folder.name) and (folder / "config.yaml").is_file()}
