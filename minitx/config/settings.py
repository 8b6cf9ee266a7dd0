"""Every setting of minitx, its default and its check: the only home of a default.

A run is described by one frozen `Config` with a section for each part. YAML files and command-line flags are read
into it by `minitx.config.parsing`; `Config.to_dict` gives plain data back. A value that cannot
work raises `UserError` with one sentence that names it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from minitx.config.probes import DEFAULT_PROBES, Probe, ProbeSetting, read_probe
from minitx.system.errors import UserError, require

MAX_WIDE = 1 << 20
"""Limit of heads, widths and context, far above what trains anywhere, so that a wrong number is named at once."""


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is split."""

    source: str = "python-docs"
    """Text to learn from: python-docs (comes with Python), repeats (random letters that come twice), a file, folder or
    glob (.txt, .jsonl, .csv, .parquet, or .gz of these), or the name of a data set on the Hugging Face Hub."""
    name: str | None = None
    """Configuration of a Hub data set, such as wikitext-2-raw-v1."""
    split: str = "train"
    """Split of a Hub data set to train on."""
    val_split: str | None = None
    """Split of a Hub data set to validate on; without it, val_fraction of the training text is held out."""
    val_fraction: float = 0.1
    """Share of the text held out for validation, between 0 and 1."""
    seed: int | None = None
    """Decides which documents are held out; by default the run's own seed."""
    split_by: Literal["auto", "document", "position"] = "auto"
    """Hold out whole documents, or the end of the text (position); auto takes documents where there are 100 or more."""
    text_column: str = "text"
    """Column that holds the text in .jsonl, .csv, .parquet and Hub data sets."""
    join_rows: bool = False
    """Take the rows of a data set as the lines of one running text instead of a document each (as in WikiText)."""
    streaming: bool = False
    """Read a Hub data set as it arrives instead of downloading all of it first."""
    max_documents: int | None = None
    """Read at most this many documents of each split."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What to do where a file is not UTF-8: stop and name the byte, or put U+FFFD in its place."""

    def __post_init__(self) -> None:
        require(bool(self.source), "data.source is empty: name a file, a folder, a glob or a data set.")
        require(
            0 < self.val_fraction < 1,
            f"data.val_fraction is {self.val_fraction}, but it must lie between 0 and 1: try 0.1.",
        )
        require(
            self.seed is None or 0 <= self.seed < 2**63,
            f"data.seed is {self.seed}, but it must be at least 0 and less than 2 to the 63.",
        )
        require(
            self.max_documents is None or self.max_documents >= 1,
            f"data.max_documents is {self.max_documents}, but at least one document is needed.",
        )


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    type: Literal["unigram", "bpe", "char"] = "unigram"
    """Kind of SentencePiece model."""
    vocab_size: int | None = 4096
    """Number of tokens, control and byte tokens included; char takes every character there is and ignores it."""

    def __post_init__(self) -> None:
        if self.type != "char":
            require(
                self.vocab_size is not None and 300 <= self.vocab_size <= 65536,
                f"tokenizer.vocab_size is {self.vocab_size}, but {self.type} needs 300 to 65536 tokens "
                "(256 of them stand for bytes).",
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer."""

    n_layer: int = 4
    """Number of blocks."""
    n_head: int = 4
    """Attention heads in each block; must divide d_model into heads of even width."""
    n_kv_head: int | None = None
    """Key-value heads: n_head of them (the default) is multi-head, 1 is multi-query, between is grouped-query
    attention; must divide n_head."""
    attention: Literal["multi_head", "latent"] = "multi_head"
    """multi_head gives every head, or group of heads, keys and values of its own; latent makes those of all heads from
    one compressed vector for each token (DeepSeek-V2's multi-head latent attention)."""
    d_latent: int | None = None
    """Latent attention: width of the compressed key-value that is cached; by default half of d_model."""
    d_rotary: int | None = None
    """Latent attention: width of the rotary part, which each query has besides d_head and all keys share; by default
    half of d_head, rounded up to even."""
    kept_heads: list[list[int]] | None = None
    """The heads that pruning left, for each layer, such as '[[0, 2, 3], [1]]'; they keep their number and their width
    of d_model / n_head. By default all of them."""
    d_model: int = 192
    """Width of the residual stream."""
    d_ff: int | None = None
    """Hidden width of the feed-forward layer; by default 8/3 of d_model, rounded up to a multiple of 32."""
    context_length: int = 128
    """Tokens that the model sees at once."""
    qk_norm: bool = True
    """Normalise each query and key vector (Qwen3's architecture; without it, Llama's); in latent attention, the
    compressed key-value."""
    tie_embeddings: bool = False
    """Use one matrix for the token embedding and the output layer."""
    rope_theta: float = 10000.0
    """Base of the rotary position frequencies."""
    norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    dropout: float = 0.0
    """Share of pattern weights and of block outputs dropped while training."""

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "d_model", "context_length"):
            require(getattr(self, name) >= 1, f"model.{name} is {getattr(self, name)}, but it must be at least 1.")
        for name in ("n_head", "d_model", "context_length", "d_ff"):
            value = getattr(self, name) or 1
            require(value <= MAX_WIDE, f"model.{name} is {value}, but it must be at most {MAX_WIDE}.")
        counts = [n for n in range(1, self.d_model // 2 + 1) if self.d_model % (2 * n) == 0]
        require(bool(counts), f"model.d_model is {self.d_model}, but it must be even, for rotary positions turn pairs.")
        if self.n_head not in counts:
            below = max((n for n in counts if n < self.n_head), default=counts[0])
            above = min((n for n in counts if n > self.n_head), default=below)
            choice = f"{below} or {above}" if above != below else f"{below}"
            raise UserError(
                f"model.n_head is {self.n_head}, which does not divide model.d_model {self.d_model} "
                f"into heads of even width: take {choice}."
            )
        require(
            self.n_kv_head is None or (self.n_kv_head >= 1 and self.n_head % self.n_kv_head == 0),
            f"model.n_kv_head is {self.n_kv_head}, but it must divide model.n_head {self.n_head}: take "
            f"{', '.join(str(n) for n in range(1, self.n_head + 1) if self.n_head % n == 0)}.",
        )
        self.check_latent()
        self.check_kept_heads()
        require(self.d_ff is None or self.d_ff >= 1, f"model.d_ff is {self.d_ff}, but it must be at least 1.")
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}, but it must be at least 0 and less than 1.")
        require(self.rope_theta > 0, f"model.rope_theta is {self.rope_theta}, but it must be positive.")
        require(self.norm_eps > 0, f"model.norm_eps is {self.norm_eps}, but it must be positive.")

    def check_latent(self) -> None:
        """Raise `UserError` where the sizes of latent attention cannot be, or where there is none to use them."""
        if self.attention != "latent":
            for name in ("d_latent", "d_rotary"):
                require(
                    getattr(self, name) is None,
                    f"model.{name} is {getattr(self, name)}, but only latent attention has it: "
                    "leave it out, or set model.attention to latent.",
                )
            return
        require(
            self.n_kv_head is None,
            f"model.n_kv_head is {self.n_kv_head}, but latent attention makes the keys and values of every head from "
            "one compressed vector: leave it out.",
        )
        require(self.latent_width >= 1, f"model.d_latent is {self.d_latent}, but it must be at least 1.")
        require(
            self.rotary_width >= 2 and self.rotary_width % 2 == 0,
            f"model.d_rotary is {self.d_rotary}, but it must be even and at least 2, for rotary positions turn pairs.",
        )

    def check_kept_heads(self) -> None:
        """Raise `UserError` unless `kept_heads` names, for each layer, some of its heads in order."""
        if self.kept_heads is None:
            return
        require(
            len(self.kept_heads) == self.n_layer,
            f"model.kept_heads is for {len(self.kept_heads)} layers, but model.n_layer is {self.n_layer}.",
        )
        for layer, heads in enumerate(self.kept_heads):
            require(
                heads == sorted(set(heads) & set(range(self.n_head))),
                f"model.kept_heads has {heads} for layer {layer}, but it must name heads from 0 to {self.n_head - 1}, "
                "each once and in order.",
            )
        require(any(self.kept_heads), "model.kept_heads leaves no head at all: keep one, or no token sees another.")

    @property
    def d_head(self) -> int:
        """Width of one head: d_model / n_head, also where pruning left fewer."""
        return self.d_model // self.n_head

    @property
    def latent_width(self) -> int:
        """`d_latent`, or half of `d_model`."""
        return self.d_model // 2 if self.d_latent is None else self.d_latent

    @property
    def rotary_width(self) -> int:
        """How many components of each query and key have rotary positions: all of a head's, or `d_rotary` in latent
        attention (by default d_head / 2, as in DeepSeek-V2, section 3.1.2; rounded up to even)."""
        if self.attention != "latent":
            return self.d_head
        return -(-self.d_head // 4) * 2 if self.d_rotary is None else self.d_rotary

    def heads_in(self, layer: int) -> list[int]:
        """The heads of a layer by their number: all `n_head`, or those that pruning left."""
        return list(range(self.n_head)) if self.kept_heads is None else self.kept_heads[layer]

    def kv_heads_in(self, layer: int) -> list[int]:
        """The key-value heads of a layer by their number: those that serve one of its heads."""
        group = self.n_head // self.kv_heads
        return sorted({head // group for head in self.heads_in(layer)})

    @property
    def kv_heads(self) -> int:
        """`n_kv_head`, or `n_head` where none is given."""
        return self.n_kv_head or self.n_head

    @property
    def ff_width(self) -> int:
        """`d_ff`, or 8/3 of `d_model` rounded up to a multiple of 32 (Shazeer 2020 keeps parameters equal so)."""
        return self.d_ff or -(-8 * self.d_model // 3 // 32) * 32


@dataclass(frozen=True)
class TrainConfig:
    """How the model learns."""

    steps: int = 480
    """Optimizer updates in the run."""
    batch_size: int = 16
    """Sequences in one forward pass."""
    grad_accum: int = 1
    """Forward passes whose gradients are summed for one update."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon trains the blocks' matrices with Muon and the rest with AdamW; adamw trains everything with AdamW."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = 0.01
    """Peak learning rate of Muon."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices, per unit of learning rate."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay of the mean squared gradient."""
    muon_momentum: float = 0.95
    """Muon's Nesterov momentum."""
    warmup_steps: int = 20
    """Steps in which the learning rate rises linearly from 0 to its peak."""
    decay_fraction: float = 0.7
    """Share of the run, at its end, in which the learning rate falls linearly to zero."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient; a larger one is scaled down to it; 0 turns clipping off."""
    eval_every: int = 120
    """Steps between evaluations over the whole validation split; also done at the end."""
    checkpoint_every: int = 120
    """Steps between checkpoints; also written at the end and on interruption."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept, besides the best one."""
    sample_every: int = 240
    """Steps between samples; also written at the end; 0 for none."""
    sample_tokens: int = 120
    """Length of a sample in tokens."""
    sample_prompt: str | None = None
    """Text that a sample continues; without it, a sample starts a new document."""
    skip_bad_steps: int = 0
    """Steps of the run whose loss or gradient may be infinite or not a number: they change no weight and their batch
    is recorded. One more ends training; 0 ends it at the first."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accum", "eval_every", "checkpoint_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"train.{name} is {getattr(self, name)}, but it must be at least 1.")
        for name in ("warmup_steps", "sample_every", "weight_decay", "grad_clip", "skip_bad_steps"):
            require(getattr(self, name) >= 0, f"train.{name} is {getattr(self, name)}, but it must not be negative.")
        for name in ("learning_rate", "muon_learning_rate", "sample_tokens"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"train.{name} is {value}, but it must be positive and finite.")
        for name in ("beta1", "beta2", "muon_momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name} is {value}, but it must be at least 0 and less than 1.")
        require(
            0 <= self.decay_fraction <= 1,
            f"train.decay_fraction is {self.decay_fraction}, but it must lie between 0 and 1.",
        )
        require(self.sample_prompt != "", "train.sample_prompt is empty: leave it out to start a new document.")


@dataclass(frozen=True)
class LogConfig:
    """What is written down while it learns."""

    every: int = 10
    """Steps between lines of metrics."""
    heads_every: int = 120
    """Steps between pictures and scores of the attention heads; also at the end; 0 for none."""
    snapshots_every: int = 20
    """Steps between snapshots of the attention heads for TensorBoard's Attention tab; also at the end; 0 for none."""
    probes: list[str | ProbeSetting] = field(default_factory=lambda: copy.deepcopy(list(DEFAULT_PROBES)))
    """Texts whose attention patterns are drawn; {text, links: [{name, from, to}]} also measures how much each head
    attends from the later words `from` to the earlier `to`."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"log.every is {self.every}, but it must be at least 1.")
        for name in ("heads_every", "snapshots_every"):
            require(getattr(self, name) >= 0, f"log.{name} is {getattr(self, name)}, but it must not be negative.")
        self.read_probes()

    def read_probes(self) -> list[Probe]:
        """`probes` with their links found in the texts."""
        return [read_probe(probe) for probe in self.probes]


@dataclass(frozen=True)
class Config:
    """Train a small transformer and log what its attention heads do."""

    out: str = "runs/default"
    """Run folder; a name already taken gets -2, -3 and so on."""
    seed: int = 1337
    """Decides everything random."""
    device: str = "auto"
    """auto, cpu, cuda (or cuda:1 and so on) or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; weights stay in float32."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the model with torch.compile; auto does so on CUDA only."""
    threads: Literal["auto"] | int = "auto"
    """CPU threads; kept with the run, since the last bit of a result depends on it."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        require(bool(self.out), "out is empty: name a folder for the run.")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}, but it must be at least 0 and less than 2 to the 63.")
        require(
            self.threads == "auto" or self.threads >= 1,
            f"threads is {self.threads}, but it must be auto or at least 1.",
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as nested plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class GenerateConfig:
    """Write text with a trained model."""

    prompt: str | None = None
    """Text to continue; - reads it from standard input; without a prompt a new document is started."""
    prompt_file: str | None = None
    """File that holds the prompt, in UTF-8."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    temperature: float = 0.8
    """Divides the logits: below 1 is safer, above 1 is wilder, 0 always takes the likeliest token."""
    top_k: int | None = None
    """Choose among this many likeliest tokens."""
    top_p: float | None = None
    """Choose among the fewest likeliest tokens whose probabilities sum to this (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Choose among tokens at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that are already there less likely (Keskar et al. 2019)."""
    num_samples: int = 1
    """Samples to write, in one batch."""
    seed: int = 1337
    """Decides everything random."""
    stop: list[str] | str = field(default_factory=list)
    """A text, or a list such as '["a", "b"]' of texts, at which a sample ends; it is left out."""
    checkpoint: str = "best"
    """best, last, or a step of the run."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of weights and cache; auto takes bfloat16 on a GPU that multiplies it, float32 elsewhere."""
    compile: bool = False
    """Compile the step of a token with torch.compile: a wait first, then more tokens per second. Not for several
    samples on the CPU, latent attention or removed heads, which go on without. Rounding can make another text of it."""

    def __post_init__(self) -> None:
        require(
            self.prompt != "", "The prompt is empty: give some text, or leave --prompt out to start a new document."
        )
        require(
            self.prompt is None or self.prompt_file is None,
            "Both --prompt and --prompt_file are given: leave one out.",
        )
        for name in ("max_new_tokens", "num_samples"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, but it must be at least 1.")
        require(
            0 <= self.temperature < math.inf,
            f"temperature is {self.temperature}, but it must be finite and not negative.",
        )
        require(self.top_k is None or self.top_k >= 1, f"top_k is {self.top_k}, but it must be at least 1.")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, f"{name} is {value}, but it must be above 0 and at most 1.")
        require(
            self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}, but it must be positive."
        )
        require(0 <= self.seed < 2**63, f"seed is {self.seed}, but it must be at least 0 and less than 2 to the 63.")
        require(all(self.stops), "stop holds an empty text: take it out.")

    @property
    def stops(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop
