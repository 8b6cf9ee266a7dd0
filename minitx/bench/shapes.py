"""The shapes that are measured: one table, from the shipped configurations where they have them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import Config, LogConfig, ModelConfig, TokenizerConfig, TrainConfig
from minitx.config.parsing import load_config
from minitx.system.errors import nearest, require

CONFIGS = Path(__file__).parents[2] / "configs"
CHARACTERS = 323
"""Vocabulary of a char tokenizer on tinyshakespeare: 65 characters, 256 bytes, two control tokens."""

STORIES_15M = Config(
    tokenizer=TokenizerConfig(vocab_size=32000),
    model=ModelConfig(n_layer=6, n_head=6, d_model=288, d_ff=768, context_length=256, tie_embeddings=True),
)
"""llama2.c's stories15M, with the default's batch."""

SHIPPED = ("shakespeare_char_cpu", "shakespeare_char", "gpu_small")
"""Names that stand for configs/NAME.yaml."""
NAMES = ("default", "15m", *SHIPPED)


@dataclass(frozen=True)
class Shape:
    """A model and how it trains, without its text."""

    name: str
    vocab_size: int
    model: ModelConfig
    train: TrainConfig
    log: LogConfig
    tokenizer: TokenizerConfig

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one update learns from."""
        return self.train.batch_size * self.train.grad_accum * self.model.context_length

    def as_llama(self) -> Shape:
        """The same in Llama's architecture: without query-key norm, and with the epsilon that llama2.c has built in.

        Without dropout, which Llama has in other places.
        """
        model = dataclasses.replace(self.model, qk_norm=False, norm_eps=1e-5, dropout=0.0)
        return dataclasses.replace(self, model=model)

    def as_json(self) -> dict[str, Any]:
        """Plain data, from which `shape_from_json` makes the same again."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """One line for the titles of tables."""
        model = self.model
        return (
            f"{self.name}: {model.n_layer} layers × {model.n_head} heads, {model.d_model} wide, vocabulary "
            f"{self.vocab_size}, batch {self.train.batch_size} × {model.context_length}"
            + (f" × {self.train.grad_accum}" if self.train.grad_accum > 1 else "")
        )


def shape_from_json(content: dict[str, Any]) -> Shape:
    """What `Shape.as_json` gave."""
    sections = {
        "model": ModelConfig(**content["model"]),
        "train": TrainConfig(**content["train"]),
        "log": LogConfig(**content["log"]),
        "tokenizer": TokenizerConfig(**content["tokenizer"]),
    }
    return Shape(**{**content, **sections})


def shape_of(name: str, config: Config) -> Shape:
    """The shape of a configuration."""
    vocab_size = CHARACTERS if config.tokenizer.type == "char" else int(config.tokenizer.vocab_size or 0)
    return Shape(name, vocab_size, config.model, config.train, config.log, config.tokenizer)


def named(name: str) -> Shape:
    """The shape that `--shape` names: one of the table, or a YAML file of settings. Raises UserError."""
    if name == "default":
        return shape_of(name, Config())
    if name == "15m":
        return shape_of(name, STORIES_15M)
    return shape_of(Path(name).stem, load_config(config_file(name, [*NAMES])))


def config_file(name: str, known: list[str]) -> Path:
    """The YAML file that `name` is, or that configs/ has under that name; raises UserError where there is none."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    require(
        name in known,
        f"There is no shape {name!r}{nearest(name, known)}: there are {', '.join(known)}, or give a YAML file.",
    )
    file = CONFIGS / f"{name}.yaml"
    require(file.is_file(), f"{file} is missing, for minitx is not run from its repository: give the YAML file itself.")
    return file
