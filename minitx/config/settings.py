"""All settings: the only place where their defaults, checks and help texts are defined.

One frozen `Config` describes a run, with a section for each part. A value that cannot work raises `UserError`.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from minitx.config.model import ModelConfig
from minitx.config.probes import DEFAULT_PROBES, Probe, ProbeSetting, read_probe
from minitx.system.errors import require, require_bounds


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from, and which part of it validates."""

    source: str = "python-docs"
    """Text to learn from: python-docs, tales, repeats, files, or the name of a data set on the Hugging Face Hub.
    python-docs is prose of Python, NumPy and Matplotlib. tales are of a small language whose grammar is known. repeats
    are random letters that come twice. Name files by a path, a folder or a glob; they may be .txt, .jsonl or .csv, the
    .gz of these, or .parquet."""
    name: str | None = None
    """Which configuration of a Hub data set to read, such as wikitext-2-raw-v1."""
    split: str = "train"
    """Which split of a Hub data set to train on."""
    val_split: str | None = None
    """Which split of a Hub data set to validate on; by default, val_fraction of the training text is held out."""
    val_fraction: float = 0.1
    """Share of the text held out for validation, between 0 and 1."""
    seed: int | None = 1
    """Seed for the choice of documents to hold out, the same for runs of any seed; null takes the seed of the run."""
    split_by: Literal["auto", "document", "position"] = "auto"
    """What to hold out: whole documents (document) or the end of the text (position); auto holds out documents if the
    text has 100 or more."""
    text_column: str = "text"
    """Which column of a .jsonl, .csv or .parquet file, or of a Hub data set, holds the text."""
    join_rows: bool = False
    """Read the rows of a data set as one running text (as WikiText needs), not as a document each."""
    streaming: Literal["train"] | bool = False
    """true reads a Hub data set while it arrives, without downloading all of it first. train never prepares all of it:
    training reads a Hub data set, or .jsonl, .csv or .parquet files, as it goes."""
    readers: int = 4
    """With streaming train: how many parts of the data are read at once, whatever the number of processes."""
    buffer: int = 1000
    """With streaming train: how many documents each reader shuffles at once."""
    max_documents: int | None = None
    """Read at most this many documents of a split; by default all. With streaming train, only the tokenizer and the
    validation text come from these, by default 10,000."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """If a file is not UTF-8: stop and name the byte (strict), or read U+FFFD in its place (replace, not for .csv)."""

    def __post_init__(self) -> None:
        require(bool(self.source), "data.source is empty: name a file, a folder, a glob or a data set.")
        require_bounds(self, "data.", "val_fraction", above=0, below=1)
        require_bounds(self, "data.", "seed", at_least=0, below=2**63)
        require_bounds(self, "data.", "max_documents readers buffer", at_least=1)
        clash = "data.join_rows" * self.join_rows or "data.split_by position" * (self.split_by == "position")
        require(
            self.streaming != "train" or not clash,
            f"data.streaming is train, which keeps documents apart: leave out {clash}.",
        )


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    type: Literal["unigram", "bpe", "char", "word"] = "unigram"
    """Kind of SentencePiece model; char makes a token of every character, word of every frequent word with the space
    before it."""
    vocab_size: int | None = 2048
    """Number of tokens, control and byte tokens included; word may need fewer, char ignores it."""

    def __post_init__(self) -> None:
        require(
            self.type == "char" or 300 <= (self.vocab_size or 0) <= 65536,
            f"tokenizer.vocab_size is {self.vocab_size}, but {self.type} needs 300 to 65536 tokens "
            "(256 of them stand for bytes).",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = 800
    """Number of optimizer updates."""
    batch_size: int = 16
    """Sequences in a forward pass."""
    grad_accum: int = 1
    """Forward passes whose gradients are added up for one update."""
    start: Literal["bigram", "zero", "random"] = "bigram"
    """Weights before the first step. random: no weight knows anything. zero: blocks and output write nothing yet.
    bigram: embedding and output matrix also predict each token from the one before, as counted in the training text. A
    tied embedding starts alike with zero and bigram."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon trains the matrices of the blocks with Muon and all else with AdamW; adamw trains everything with AdamW."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW."""
    embedding_learning_rate: float | None = 0.02
    """Peak learning rate of the embedding, which AdamW trains; null takes learning_rate, as does a tied embedding."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices: each update shrinks them by this times the learning rate."""
    beta1: float = 0.9
    """AdamW's decay rate for the mean of the gradient."""
    beta2: float = 0.95
    """AdamW's decay rate for the mean of the squared gradient."""
    muon_momentum: float = 0.85
    """Nesterov momentum of Muon."""
    warmup_steps: int = 20
    """Number of steps over which the learning rate rises linearly from 0 to its peak."""
    decay_fraction: float = 0.7
    """Share of the run, at its end, over which the learning rate falls linearly to 0."""
    average_fraction: float = 0.0
    """The run ends with the mean of the weights over this share of its steps, the last ones; 0 takes no mean."""
    grad_clip: float = 1.0
    """Scale the gradient down if its norm is larger than this; 0 turns it off."""
    eval_every: int = 200
    """Steps between evaluations on the whole validation split; one more comes at the end."""
    checkpoint_every: int = 200
    """Steps between checkpoints; one more is written at the end, and when the run is interrupted."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep, besides the best one."""
    sample_every: int = 400
    """Steps between samples of generated text; one more is written at the end; 0 turns samples off."""
    sample_tokens: int = 120
    """Length of a sample in tokens."""
    sample_prompt: str | None = None
    """Text for samples to continue; by default they start a new document."""
    skip_bad_steps: int = 0
    """How many steps with an infinite or undefined loss or gradient to skip: they change no weight, and their batch is
    recorded. The next one ends training; with 0, the first does."""

    def __post_init__(self) -> None:
        require_bounds(self, "train.", "steps batch_size grad_accum eval_every checkpoint_every", at_least=1)
        require_bounds(self, "train.", "keep_checkpoints sample_tokens", at_least=1)
        require_bounds(self, "train.", "warmup_steps sample_every skip_bad_steps", at_least=0)
        require_bounds(self, "train.", "weight_decay grad_clip", at_least=0, below=math.inf)
        require_bounds(
            self, "train.", "learning_rate embedding_learning_rate muon_learning_rate", above=0, below=math.inf
        )
        require_bounds(self, "train.", "beta1 beta2 muon_momentum", at_least=0, below=1)
        require_bounds(self, "train.", "decay_fraction average_fraction", at_least=0, at_most=1)
        require(self.sample_prompt != "", "train.sample_prompt is empty: leave it out to start a new document.")


@dataclass(frozen=True)
class ParallelConfig:
    """How several processes, which `torchrun` starts, train one run together."""

    deterministic: bool = False
    """Add gradients up row by row in one order: every number of processes gives the same result to the last bit, more
    slowly."""
    shard: bool = False
    """Give each process a part of the weights, gradients and optimizer state (FSDP), for models that do not fit. One
    process ignores it, and it excludes `deterministic`."""
    checkpoint_activations: bool = False
    """Compute each block twice, to keep only what enters it until its gradient is due."""
    timeout: int = 600
    """Seconds that a process waits for another, which may be writing or drawing, before training ends."""

    def __post_init__(self) -> None:
        require_bounds(self, "parallel.", "timeout", at_least=1)
        require(
            not (self.deterministic and self.shard),
            "parallel.deterministic and parallel.shard are both set: leave one out, for shards add up in their order.",
        )


@dataclass(frozen=True)
class LogConfig:
    """What is logged during training."""

    every: int = 10
    """Steps between lines of metrics."""
    heads_every: int = 200
    """Steps between pictures and scores of the attention heads; also at the end; 0 turns them off."""
    head_scalars: bool = False
    """Give each score of each head a chart of its own among TensorBoard's scalars, not only the highest and the mean of
    each layer."""
    snapshots_every: int = 50
    """Steps between snapshots of the heads for TensorBoard's Attention tab; also at the end; 0 turns them off."""
    keep_weights: int = 16
    """Steps, evenly spread over the run, whose weights are kept for the Attention tab; fewer if they would take more
    than 100 MB in all; 0 turns it off."""
    examples: bool | int = True
    """Tokens of validation text in which each head's strongest examples are sought. True takes 3072, fewer in a short
    run; 0 turns them off. They are sought at each quarter of the run."""
    probes: list[str | ProbeSetting] = field(default_factory=lambda: copy.deepcopy(list(DEFAULT_PROBES)))
    """Texts whose attention patterns are drawn. A probe {text, links: [{name, from, to}]} also measures how much every
    head attends from the later words `from` to the earlier words `to`."""

    def __post_init__(self) -> None:
        require_bounds(self, "log.", "every", at_least=1)
        require_bounds(self, "log.", "heads_every snapshots_every keep_weights", at_least=0)
        require_bounds(self, "log.", "examples", at_least=0, at_most=65536)
        self.read_probes()

    def read_probes(self) -> list[Probe]:
        """`probes`, with the places of their links in the text."""
        return [read_probe(probe) for probe in self.probes]


@dataclass(frozen=True)
class Config:
    """Train a small transformer and log what its attention heads do."""

    out: str = "runs/default"
    """Run folder; if the name is taken, -2, -3 and so on is added."""
    init_from: str | None = None
    """Run folder whose best weights, tokenizer and model settings the run starts with, to train them further. Of the
    model settings, only context_length and dropout can be changed."""
    seed: int = 1337
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda (or cuda:1 and so on) or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; weights stay in float32."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the model with torch.compile; auto does so only on CUDA."""
    threads: Literal["auto"] | int = "auto"
    """CPU threads. A resumed run keeps them, for the last digit of a result depends on their number."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        require(bool(self.out), "out is empty: name a folder for the run.")
        require_bounds(self, "", "seed", at_least=0, below=2**63)
        require(self.threads == "auto" or self.threads >= 1, f"threads is {self.threads}: give auto or at least 1.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as nested plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class GenerateConfig:
    """Write text with a trained model."""

    prompt: str | None = None
    """Text to continue; - reads it from standard input; by default a new document is started."""
    prompt_file: str | None = None
    """UTF-8 file with the text to continue."""
    max_new_tokens: int = 200
    """Maximum number of new tokens."""
    temperature: float = 0.8
    """Divides the logits: below 1 is safer, above 1 is wilder; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Sample only from this many of the likeliest tokens."""
    top_p: float | None = None
    """Sample only from the fewest tokens whose probabilities add up to this (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Sample only from tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens of the text so far less likely (Keskar et al. 2019)."""
    num_samples: int = 1
    """Samples to generate, in one batch."""
    seed: int = 1337
    """Seed of all random numbers."""
    stop: list[str] | str = field(default_factory=list)
    """End a sample before this text, or before any in a list such as '["a", "b"]'."""
    checkpoint: str = "best"
    """Which checkpoint to load: best, last, or a step."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of weights and cache; auto takes bfloat16 on a GPU that supports it, else float32."""
    compile: bool = False
    """Compile the decoding step with torch.compile: a wait first, then more tokens per second. No effect for several
    samples on the CPU, latent attention, tricks or pruned heads. Rounding differs, so the text may differ too."""

    def __post_init__(self) -> None:
        require(self.prompt != "", "The prompt is empty: give some text, or leave it out to start a new document.")
        require(None in (self.prompt, self.prompt_file), "Both --prompt and --prompt_file are given: leave one out.")
        require_bounds(self, "", "max_new_tokens num_samples top_k", at_least=1)
        require_bounds(self, "", "temperature", at_least=0, below=math.inf)
        require_bounds(self, "", "top_p min_p", above=0, at_most=1)
        require_bounds(self, "", "repetition_penalty", above=0, below=math.inf)
        require_bounds(self, "", "seed", at_least=0, below=2**63)
        require(all(self.stops), "stop holds an empty text: take it out.")

    @property
    def stops(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop
