"""Settings of the model: their defaults, their checks, and the sizes that follow from them."""

import math
from dataclasses import dataclass, field
from typing import Literal

from minitx.config.rope import RopeScaling, check_rope_scaling
from minitx.system.errors import nearest, require, require_bounds

MAX_WIDTH = 1 << 20  # also of heads and context; nobody trains more, so a larger number is a mistake
MAX_LAYERS = 1000
TRICKS = ("value_embeddings", "smear", "key_offset", "bigram_hash", "softcap", "relu2")
LOOK_BACK = {"smear", "key_offset", "bigram_hash"}
"""The tricks that read the token before, which a cache of keys and values does not keep."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer."""

    n_layer: int = 4
    """Number of blocks."""
    n_head: int = 4
    """Attention heads in a block; must divide d_model into heads of even width, unless head_width is given."""
    head_width: int | None = None
    """Width of a head, an even number; by default d_model / n_head."""
    n_kv_head: int | None = None
    """Key-value heads in a block; must divide n_head. As many as n_head (the default) is multi-head attention, 1 is
    multi-query, any number between is grouped-query attention."""
    attention: Literal["multi_head", "latent"] = "multi_head"
    """multi_head projects keys and values for every head or group of heads. latent computes those of all heads from one
    compressed vector per token (multi-head latent attention of DeepSeek-V2)."""
    d_latent: int | None = None
    """Latent attention: width of the compressed vector, which is cached; by default half of d_model."""
    d_rotary: int | None = None
    """Latent attention: width of the rotary part, which queries have besides d_head. The keys of all heads share one.
    By default half of d_head, rounded up to even."""
    kept_heads: list[list[int]] | None = None
    """The heads of every layer that pruning kept, such as '[[0, 2, 3], [1]]', by their numbers before pruning. Their
    width stays as it was. By default all heads."""
    d_model: int = 128
    """Width of the residual stream."""
    d_ff: int | None = None
    """Width of the feed-forward layer; by default 8/3 of d_model, rounded up to a multiple of 32."""
    context_length: int = 128
    """Maximum number of tokens that the model sees at once."""
    qk_norm: bool = True
    """Normalise queries and keys, as Qwen3 does and Llama does not; in latent attention, the compressed vector."""
    tie_embeddings: bool = False
    """Use the same matrix for the token embedding and the output layer."""
    rope_theta: float = 10000.0
    """Base of the frequencies of rotary positions."""
    rope_scaling: RopeScaling | None = None
    """Rotary positions stretched after training, as in some imported models: rope_type (linear, llama3 or yarn) and the
    numbers that belong to it, by their names in transformers."""
    norm_eps: float = 1e-6
    """What RMSNorm adds to the mean square."""
    embedding_std: float = 0.02
    """Standard deviation of the token embedding where train.start is random, or where it is the output matrix too."""
    dropout: float = 0.0
    """Share of what each block adds to the residual that training sets to 0."""
    tricks: list[str] = field(default_factory=list)
    """Changes of the architecture to study, none by default: some of value_embeddings, smear, key_offset, bigram_hash,
    softcap and relu2 (docs/tricks.md). They cannot be exported or pruned."""

    def __post_init__(self) -> None:
        require_bounds(self, "model.", "n_layer n_head n_kv_head d_model d_ff d_latent context_length", at_least=1)
        require_bounds(self, "model.", "n_head head_width d_model d_ff context_length", at_most=MAX_WIDTH)
        require_bounds(self, "model.", "n_layer", at_most=MAX_LAYERS)
        require_bounds(self, "model.", "dropout", at_least=0, below=1)
        require_bounds(self, "model.", "rope_theta norm_eps embedding_std", above=0, below=math.inf)
        self.check_width()
        require(
            self.n_head % self.kv_heads == 0,
            f"model.n_kv_head is {self.n_kv_head}, but it must divide model.n_head {self.n_head}: take "
            f"{', '.join(str(n) for n in range(1, self.n_head + 1) if self.n_head % n == 0)}.",
        )
        if self.rope_scaling is not None:
            require(self.attention == "multi_head", "model.rope_scaling needs multi-head attention: leave it out.")
            check_rope_scaling(self.rope_scaling, self.rope_theta)
        self.check_latent()
        self.check_kept_heads()
        self.check_tricks()

    def check_width(self) -> None:
        """Raise `UserError` unless heads have an even width."""
        if self.head_width is not None:
            is_even = self.head_width >= 2 and self.head_width % 2 == 0
            turn = "must be even and at least 2, for rotary positions turn pairs"
            require(is_even, f"model.head_width is {self.head_width}, but it {turn}.")
            require(self.attention == "multi_head", "model.head_width needs multi-head attention: leave it out.")
            return
        counts = [n for n in range(1, self.d_model // 2 + 1) if self.d_model % (2 * n) == 0]
        require(bool(counts), f"model.d_model is {self.d_model}, but it must be even, for rotary positions turn pairs.")
        closest = [*[n for n in counts if n < self.n_head][-1:], *[n for n in counts if n > self.n_head][:1]]
        require(
            self.n_head in counts,
            f"model.n_head is {self.n_head}, which does not divide model.d_model {self.d_model} "
            f"into heads of even width: take {' or '.join(map(str, closest))}.",
        )

    def check_latent(self) -> None:
        """Raise `UserError` if sizes of latent attention cannot work, or are given for another attention."""
        if self.attention != "latent":
            for name, value in (("d_latent", self.d_latent), ("d_rotary", self.d_rotary)):
                require(value is None, f"model.{name} is {value}, but only latent attention has it: leave it out.")
            return
        require(self.n_kv_head is None, f"model.n_kv_head is {self.n_kv_head}, but latent attention has none: drop it.")
        require(
            self.rotary_width >= 2 and self.rotary_width % 2 == 0,
            f"model.d_rotary is {self.d_rotary}, but it must be even and at least 2, for rotary positions turn pairs.",
        )

    def check_kept_heads(self) -> None:
        """Raise `UserError` unless `kept_heads` lists heads of every layer in order."""
        if self.kept_heads is None:
            return
        layers = len(self.kept_heads)
        require(
            layers == self.n_layer, f"model.kept_heads is for {layers} layers, but model.n_layer is {self.n_layer}."
        )
        for layer, heads in enumerate(self.kept_heads):
            require(
                heads == sorted(set(heads) & set(range(self.n_head))),
                f"model.kept_heads has {heads} for layer {layer}: name heads of 0 to {self.n_head - 1} once, in order.",
            )
        require(any(self.kept_heads), "model.kept_heads leaves no head at all: keep one, or no token sees another.")

    def check_tricks(self) -> None:
        """Raise `UserError` for tricks that do not exist, or not in this model."""
        for name in self.tricks:
            hint = nearest(name, list(TRICKS)) or f": take some of {', '.join(TRICKS)}"
            require(name in TRICKS, f"model.tricks has {name!r}, which is none{hint}.")
        listed = ", ".join(self.tricks)
        require(len({*self.tricks}) == len(self.tricks), f"model.tricks is {listed}: name each trick once.")
        require(
            not self.tricks or (self.attention == "multi_head" and self.kept_heads is None),
            f"model.tricks is {listed}, but latent attention and pruned models have no tricks: leave them out.",
        )

    @property
    def looks_back(self) -> bool:
        """Whether a trick reads the token before, so that only whole texts can be read, without a filled cache."""
        return not LOOK_BACK.isdisjoint(self.tricks)

    @property
    def d_head(self) -> int:
        """Width of a head: `head_width`, or by default d_model / n_head, also after pruning."""
        return self.head_width or self.d_model // self.n_head

    @property
    def latent_width(self) -> int:
        """`d_latent`, or half of `d_model`."""
        return self.d_model // 2 if self.d_latent is None else self.d_latent

    @property
    def rotary_width(self) -> int:
        """How many components of a query or key are rotated: all of a head, or `d_rotary` in latent attention.

        The default of `d_rotary` is d_head / 2, as in DeepSeek-V2, section 3.1.2, rounded up to even.
        """
        if self.attention != "latent":
            return self.d_head
        return -(-self.d_head // 4) * 2 if self.d_rotary is None else self.d_rotary

    def heads_in(self, layer: int) -> list[int]:
        """The numbers of the heads in a layer: all `n_head`, or those that pruning kept."""
        return list(range(self.n_head)) if self.kept_heads is None else self.kept_heads[layer]

    def kv_heads_in(self, layer: int) -> list[int]:
        """The numbers of the key-value heads in a layer: those that one of its heads uses."""
        group = self.n_head // self.kv_heads
        return sorted({head // group for head in self.heads_in(layer)})

    @property
    def kv_heads(self) -> int:
        """`n_kv_head`, or by default `n_head`."""
        return self.n_kv_head or self.n_head

    @property
    def ff_width(self) -> int:
        """`d_ff`, or 8/3 of `d_model` rounded up to a multiple of 32.

        With 8/3, SwiGLU has as many parameters as a plain layer of 4 times d_model (Shazeer 2020).
        """
        return self.d_ff or -(-8 * self.d_model // 3 // 32) * 32
