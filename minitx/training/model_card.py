"""What a model is, as Markdown tables and as hyperparameters."""

from typing import Any

from minitx.config import Config, ModelConfig
from minitx.data.prepare import Prepared
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token, matmul_flops_per_token, parameters_by_part
from minitx.system.runtime import Runtime

MAIN = {
    "model.n_head": "Attention heads",
    "model.attention": "Attention kind",
    "data.source": "Data",
    "model.n_layer": "Layers",
    "model.d_model": "Model width",
    "seed": "Seed",
    "train.steps": "Steps",
}
"""Settings → their names in the HParams tab, which sorts by name, capitals first. All others keep their names."""
NO_HYPERPARAMETERS = {"out", "device", "compile", "threads", "data.streaming", "data.encoding_errors"}
NO_HYPERPARAMETERS |= {f"train.{name}" for name in ("eval_every", "checkpoint_every", "keep_checkpoints")}
NO_HYPERPARAMETERS |= {f"train.{name}" for name in ("sample_every", "sample_tokens", "sample_prompt", "skip_bad_steps")}
NO_HYPERPARAMETERS |= {"model.n_kv_head"}  # told by the kind of attention
"""Settings that the HParams tab leaves out, besides those of log: they change no result."""


def model_card(model: Transformer, prepared: Prepared, runtime: Runtime) -> str:
    """What the model is, as Markdown tables."""
    config, parts = model.config, parameters_by_part(model)
    rows = [
        ("layers × heads", f"{config.n_layer} × {config.n_head}"),
        *attention_rows(config),
        ("d_model", config.d_model),
        ("d_head", config.d_head),
        ("d_ff", config.ff_width),
        ("context length", config.context_length),
        ("vocabulary", model.vocab_size),
        ("parameters", f"{sum(parts.values()):,}"),
        *((f"parameters: {part}", f"{count:,}") for part, count in parts.items()),
        ("cache bytes per token (float32)", f"{cache_bytes_per_token(config):,}"),
        ("matmul FLOPs per token, forward", f"{matmul_flops_per_token(model, config.context_length):,}"),
        ("training tokens", f"{len(prepared.train):,}"),
        ("validation tokens", f"{len(prepared.val):,}"),
        ("text fingerprint", prepared.fingerprint[:16]),
        ("computed on", runtime.describe()),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def attention_rows(config: ModelConfig) -> list[tuple[str, object]]:
    """What keys and values come from, and the heads that pruning left, for the model card."""
    rows: list[tuple[str, object]] = [("key-value heads", config.kv_heads)]
    if config.attention == "latent":
        rows = [("latent attention", f"d_latent {config.latent_width}, d_rotary {config.rotary_width}")]
    if config.kept_heads is not None:
        kept = "; ".join(" ".join(map(str, heads)) or "–" for heads in config.kept_heads)
        rows.append(("heads kept by pruning", kept))
    return rows


def hyperparameters(config: Config) -> dict[str, str | float | bool]:
    """What may make one run better than another, for TensorBoard's HParams tab."""
    flat = flatten(config.to_dict()) | {"model.attention": attention_kind(config.model)}
    kept = [name for name in flat if name not in NO_HYPERPARAMETERS and not name.startswith("log.")]
    return {MAIN.get(name, name): flat[name] for name in kept}


def attention_kind(config: ModelConfig) -> str:
    """What the literature calls this attention."""
    if config.attention == "latent":
        return "latent"
    if config.kv_heads == config.n_head:
        return "multi-head"
    return "multi-query" if config.kv_heads == 1 else f"grouped-query, {config.kv_heads} key-value heads"


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Nested settings as one level of dotted names."""
    flat: dict[str, str | float | bool] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | bool | str) else str(value)
    return flat
