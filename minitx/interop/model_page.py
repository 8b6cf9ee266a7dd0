"""A page that runs its model: weights in half precision and the tokenizer, for the JavaScript of the Attention tab.

static/model/ of the tab's plugin reads what `model_data` writes.
"""

import base64
from typing import Any

import numpy as np

from minitx.config import ModelConfig
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.tokenizer import Tokenizer
from minitx.heads.places import run_probes
from minitx.heads.view import text_snapshot, view_probes
from minitx.interop.tokenizer_json import tokenizer_files
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.run.text import validation_tokens
from minitx.system.errors import UserError, require
from minitx.tensorboard.plugin.page import page

MAX_WEIGHT_BYTES = 20_000_000
"""Of all weights in half precision; base64 adds a third."""


def run_page(run: Run, model: Transformer, step: int) -> str:
    """The page of a run's model at `step`: it opens with the run's probes, with scores on validation text if that is
    still there. Raises UserError for what it cannot run."""
    probes, tokenizer = run_probes(run.config()), run.tokenizer()
    require(bool(probes), f"{run.path} has no probes, and a page opens with one: set log.probes.")
    try:
        snapshot = view_probes(model, tokenizer, probes, validation_tokens(run)).snapshot(step)
    except UserError:
        texts = [(probe.text, tokenizer.encode(probe.text)) for probe in probes]
        snapshot = text_snapshot(model, tokenizer, texts, step)
    return model_page(model, tokenizer, snapshot, title=run.path.name)


def model_page(model: Transformer, tokenizer: Tokenizer, snapshot: bytes, *, title: str) -> str:
    """The page of `model`, which opens with a snapshot of the same weights; raises UserError for what it cannot run."""
    return page([snapshot], title=title, model=model_data(model, tokenizer))


def model_data(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    """Model and tokenizer as plain data; raises UserError for a model or a tokenizer that the page lacks."""
    config, parameters = model.config, dict(model.named_parameters())
    check(config)
    size = 2 * sum(parameter.numel() for parameter in parameters.values())
    require(
        size <= MAX_WEIGHT_BYTES,
        f"The weights take {size:,} bytes in half precision, but a page holds at most {MAX_WEIGHT_BYTES:,}: "
        "export a smaller model.",
    )
    halves = []
    for name, parameter in parameters.items():
        with np.errstate(over="ignore"):
            half = parameter.detach().float().cpu().numpy().astype("<f2")
        require(bool(np.isfinite(half).all()), f"{name} has a weight that half precision cannot hold.")
        halves.append(half.tobytes())
    sizes = {"d_head": config.d_head, "n_kv_head": config.kv_heads, "d_ff": config.ff_width}
    plain = ("n_layer", "n_head", "d_model", "context_length", "rope_theta", "norm_eps")
    return {
        "config": sizes | {name: getattr(config, name) for name in plain},
        "names": [[name, parameter.numel()] for name, parameter in parameters.items()],
        "weights": base64.b64encode(b"".join(halves)).decode("ascii"),
        "tokenizer": tokenizer_data(tokenizer),
    }


def check(config: ModelConfig) -> None:
    """Raise UserError for an architecture that the page's JavaScript lacks."""
    lacking = {
        "latent attention": config.attention == "latent",
        "tricks": bool(config.tricks),
        "pruned heads": config.kept_heads is not None,
        "scaled rotary positions": config.rope_scaling is not None,
    }
    for name, has in lacking.items():
        require(not has, f"The model has {name}, which a page cannot run: export a model without.")


def tokenizer_data(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer as plain data; raises UserError where the page would give other ids.

    pieces: the token of every text, None for control and byte tokens. alone: the tokens that BPE never merges. bytes:
    the token of every byte. labels: of every token, for pictures.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    ours = not isinstance(tokenizer, JsonTokenizer) and "tokenizer.json" in tokenizer_files(tokenizer)
    require(ours, "The tokenizer is of another model or of an older version, and a page cannot follow it: train a run.")
    model = ModelProto.FromString(tokenizer.proto)
    is_unigram = model.trainer_spec.model_type == TrainerSpec.UNIGRAM
    return {
        "kind": "unigram" if is_unigram else "bpe",  # char is bpe without merges
        "pieces": [piece.piece if piece.type in (piece.NORMAL, piece.USER_DEFINED) else None for piece in model.pieces],
        "scores": np.nan_to_num([piece.score for piece in model.pieces]).tolist(),  # a letter that never came has -inf
        "alone": [piece.piece for piece in model.pieces if piece.type == piece.USER_DEFINED],
        "bytes": tokenizer.byte_tokens,
        "labels": [tokenizer.token_text(token) for token in range(tokenizer.vocab_size)],
    }
