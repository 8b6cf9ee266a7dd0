"""Export models to the `transformers` library, and import its Llama and Qwen3, with the same logits.

A model without query-key norm has Llama's architecture, one with it Qwen3's.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.system.errors import UserError, require

NAMES = {
    "embedding": "model.embed_tokens",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.attention.query": "model.layers.{}.self_attn.q_proj",
    "blocks.{}.attention.key": "model.layers.{}.self_attn.k_proj",
    "blocks.{}.attention.value": "model.layers.{}.self_attn.v_proj",
    "blocks.{}.attention.output": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.attention.query_norm": "model.layers.{}.self_attn.q_norm",
    "blocks.{}.attention.key_norm": "model.layers.{}.self_attn.k_norm",
    "blocks.{}.feed_forward_norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.feed_forward.gate": "model.layers.{}.mlp.gate_proj",
    "blocks.{}.feed_forward.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.feed_forward.down": "model.layers.{}.mlp.down_proj",
    "final_norm": "model.norm",
    "output": "lm_head",
}
"""Our name of a module → its name in transformers; {} stands for the number of the layer."""

SETTINGS = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
"""Our setting → its key in the config.json of transformers."""

FILES = ("config.json", "model.safetensors")
ARCHITECTURES = {False: ("llama", "LlamaForCausalLM"), True: ("qwen3", "Qwen3ForCausalLM")}
"""Whether the model has query-key norm → model_type and class in transformers."""


def export_model(model: Transformer, folder: Path, end_of_document: int) -> None:
    """Write config.json and model.safetensors, which `transformers` loads with AutoModelForCausalLM."""
    config = exported_config(model.config, model.vocab_size, end_of_document)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in renamed_parameters(model).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def renamed_parameters(model: Transformer) -> dict[str, Tensor]:
    """The parameters of a model, by their names in `transformers`."""
    parameters: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():  # such as blocks.3.attention.query.weight
        module = re.sub(r"[0-9]+", "{}", name.removesuffix(".weight"))
        parameters[NAMES[module].format(*re.findall("[0-9]+", name)) + ".weight"] = parameter
    return parameters


def exported_config(config: ModelConfig, vocab_size: int, end_of_document: int) -> dict[str, Any]:
    """The content of config.json for `transformers`; raises UserError where it has no architecture for the model."""
    require(
        config.attention == "multi_head",
        f"The model has {config.attention} attention, which neither Llama nor Qwen3 has: only multi-head, grouped- and "
        "multi-query attention can be exported.",
    )
    require(
        config.kept_heads is None,
        "The model has lost heads by pruning, but layers of Llama and Qwen3 have equally many: export the run it was "
        "pruned from.",
    )
    model_type, architecture = ARCHITECTURES[config.qk_norm]
    config = dataclasses.replace(config, n_kv_head=config.kv_heads, d_ff=config.ff_width)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": vocab_size,
        "head_dim": config.d_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": "float32",
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
    }


@torch.no_grad()
def import_model(folder: Path) -> Transformer:
    """The model in a folder with config.json and model.safetensors; raises UserError when minitx cannot hold it."""
    require(folder.is_dir(), f"There is no folder {folder}: name one that holds {' and '.join(FILES)}.")
    missing = [name for name in FILES if not (folder / name).is_file()]
    require(not missing, f"{folder} holds no model of transformers: there is no {' and no '.join(missing)} in it.")
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
        weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} holds no model of transformers that can be read ({reason}).") from error
    model = Transformer(*imported_config(content))
    parameters = renamed_parameters(model)
    if model.config.tie_embeddings:
        weights.pop("lm_head.weight", None)
    odd = sorted(parameters.keys() ^ weights.keys())
    require(not odd, f"The weights in {folder} do not fit: {', '.join(odd[:3])} is missing or unknown.")
    for name, parameter in parameters.items():
        require(
            parameter.shape == weights[name].shape,
            f"The weights in {folder} do not fit: {name} is {[*weights[name].shape]}, not {[*parameter.shape]}.",
        )
        parameter.copy_(weights[name])
    return model


def imported_config(content: dict[str, Any]) -> tuple[ModelConfig, int]:
    """Our settings and the vocabulary size of a config.json of transformers; raises UserError where minitx lacks it."""
    kinds = {model_type: qk_norm for qk_norm, (model_type, _) in ARCHITECTURES.items()}
    kind = str(content.get("model_type"))
    require(kind in kinds, f"The model is of type {kind!r}, but only {' and '.join(kinds)} can be imported.")
    optional = ("num_key_value_heads", "tie_word_embeddings")
    missing = [key for key in (*SETTINGS.values(), "vocab_size") if key not in (*content, *optional)]
    require(not missing, f"config.json lacks {', '.join(missing)}.")
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    require(
        rope.get("rope_type", "default") == "default",
        f"The model has rotary positions of type {rope.get('rope_type')}, which minitx lacks.",
    )
    require(not (content.get("attention_bias") or content.get("mlp_bias")), "The model has biases, which minitx lacks.")
    settings = {ours: content[theirs] for ours, theirs in SETTINGS.items() if theirs in content}
    theta = float(rope.get("rope_theta", content.get("rope_theta", 10000.0)))
    config = ModelConfig(**settings, qk_norm=kinds[kind], rope_theta=theta)
    head_dim = content.get("head_dim") or config.d_head
    require(head_dim == config.d_head, f"The heads are {head_dim} wide, but d_model / n_head is {config.d_head}.")
    return config, int(content["vocab_size"])
