"""The model shapes to measure: default, 15m, three shipped configurations, or any YAML file of settings."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from minitx.config import Config, ModelConfig, TokenizerConfig, TrainConfig
from minitx.config.parsing import load_config
from minitx.config.shipped import CONFIGS
from minitx.system.errors import nearest, require

CHARACTERS = 323
"""Vocabulary of a char tokenizer on tinyshakespeare: 65 characters, 256 bytes, two control tokens."""

STORIES_15M = ModelConfig(n_layer=6, n_head=6, d_model=288, d_ff=768, context_length=256, tie_embeddings=True)
BUILT_IN = {"default": Config(), "15m": Config(tokenizer=TokenizerConfig(vocab_size=32000), model=STORIES_15M)}
"""15m is llama2.c's stories15M with the default batch."""
SHIPPED = ("shakespeare_char_cpu", "shakespeare_char", "gpu_small")
"""Names of files in configs/."""
NAMES = (*BUILT_IN, *SHIPPED)


@dataclass(frozen=True)
class Shape:
    """A model and how it trains, without a text."""

    name: str
    vocab_size: int
    model: ModelConfig
    train: TrainConfig

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one update."""
        return self.train.batch_size * self.train.grad_accum * self.model.context_length

    def as_llama(self) -> Self:
        """The same in Llama's architecture: no query-key norm, no dropout, and llama2.c's epsilon."""
        model = dataclasses.replace(self.model, qk_norm=False, norm_eps=1e-5, dropout=0.0)
        return dataclasses.replace(self, model=model)

    def describe(self) -> str:
        """The model's sizes, for the titles of tables."""
        model = self.model
        sizes = f"{model.n_layer} layers × {model.n_head} heads, {model.d_model} wide, vocabulary {self.vocab_size}"
        return f"{self.name}: {sizes}"

    def describe_training(self) -> str:
        """The sizes of model and batch."""
        accumulated = f" × {self.train.grad_accum}" if self.train.grad_accum > 1 else ""
        return f"{self.describe()}, batch {self.train.batch_size} × {self.model.context_length}{accumulated}"


def shape_of(name: str, config: Config, vocab_size: int | None = None) -> Shape:
    """The shape of a configuration."""
    usual = CHARACTERS if config.tokenizer.type == "char" else config.tokenizer.vocab_size
    return Shape(name, vocab_size or usual or 0, config.model, config.train)


def named(name: str) -> Shape:
    """The shape that `--shape` names; raises UserError for an unknown name or file."""
    return shape_of(Path(name).stem, BUILT_IN.get(name) or load_config(config_file(name, NAMES)))


def config_file(name: str, known: tuple[str, ...]) -> Path:
    """The YAML file `name`, or configs/NAME.yaml for a name in `known`; raises UserError if neither exists."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    hint = f"{nearest(name, list(known))}: there are {', '.join(known)}, or give a YAML file."
    require(name in known, f"There is no shape {name!r}{hint}")
    return CONFIGS / f"{name}.yaml"
