"""Export models to the `transformers` library, with the same logits and, where it can hold the tokenizer, the same ids.

A model without query-key norm has Llama's architecture, one with it Qwen3's. `hf_import` reads such folders.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minitx.config import ModelConfig
from minitx.config.rope import LENGTH
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.tokenizer import Tokenizer
from minitx.interop.tokenizer_json import config_file, tokenizer_files
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields
from minitx.system.files import json_bytes, read_json, replacing
from minitx.system.recorded import is_unchanged, read_record, record

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
TOKENIZER_FILES = ("sentencepiece.model", "tokenizer.model")
"""What export writes, and what older folders have: a name that transformers takes for a tokenizer of Llama's own."""
CHECKSUM_FILE = "minitx.json"
README = "README.md"
OUR_FILES = (TOKENIZER_FILES[0], "tokenizer.json", "tokenizer_config.json", CHECKSUM_FILE, README)
ARCHITECTURES = {False: ("llama", "LlamaForCausalLM"), True: ("qwen3", "Qwen3ForCausalLM")}
"""Whether the model has query-key norm → model_type and class in transformers."""


def export_folder(
    model: Transformer, tokenizer: Tokenizer, folder: Path, card: Callable[[bool], str] | None = None
) -> bool:
    """Write model, tokenizer, checksums and the model card, as a whole; whether AutoTokenizer gives the same ids.

    A folder that an export wrote is replaced, unless its card was edited since. Raises UserError for any other file or
    folder, and as `exported_config`.

    card: the text of README.md, given whether AutoTokenizer will give the same ids; by default there is none.
    """
    path = Path(os.path.realpath(folder))
    require(path.is_dir() or not path.exists(), f"{folder} is a file: name a folder that export can make.")
    inside = {file.name for file in path.iterdir()} if path.exists() else set()
    is_ours = not inside or (CHECKSUM_FILE in inside and inside <= {*FILES, *OUR_FILES})
    require(
        is_ours and path != Path.cwd(),
        f"{folder} is the current folder, or holds other files than an export: name a new one.",
    )
    if README in inside:
        listed = Fields(read_json(path / CHECKSUM_FILE), str(path / CHECKSUM_FILE)).inside("files", dict)
        is_as_written = README in listed and is_unchanged(path / README, read_record(listed, README))
        require(is_as_written, f"{folder / README} is not as export wrote it: move it away, or name a new folder.")
    with replacing(path) as draft:
        export_model(model, draft, tokenizer.end_of_document)
        if isinstance(tokenizer, JsonTokenizer):
            tokenizer.save(draft / tokenizer.FILE)
            of_transformers = config_file(tokenizer)
        else:
            tokenizer.save(draft / TOKENIZER_FILES[0])
            of_transformers = tokenizer_files(tokenizer)
        for name, content in of_transformers.items():  # without tokenizer.json, AutoTokenizer refuses the folder
            (draft / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")
        has_tokenizer = (draft / "tokenizer.json").exists()
        if card is not None:
            (draft / README).write_text(card(has_tokenizer), "utf-8")
        about = {file.name: record(file)._asdict() for file in draft.iterdir()}
        (draft / CHECKSUM_FILE).write_bytes(json_bytes({"files": about}))
    return has_tokenizer


def export_model(model: Transformer, folder: Path, end_of_document: int) -> None:
    """Write config.json and model.safetensors, which `transformers` loads with AutoModelForCausalLM."""
    config = exported_config(model.config, model.vocab_size, end_of_document)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in renamed_parameters(model).items()}
    try:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{folder} cannot be written ({error}): make room there, or name another folder.") from error


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
    require(
        not config.tricks,
        f"The model has tricks ({', '.join(config.tricks)}), which neither Llama nor Qwen3 has: only a model without "
        "them can be exported.",
    )
    model_type, architecture = ARCHITECTURES[config.qk_norm]
    scaling = {k: int(v) if k == LENGTH else v for k, v in (config.rope_scaling or {}).items()}
    config = dataclasses.replace(config, n_kv_head=config.kv_heads, d_ff=config.ff_width)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": vocab_size,
        "head_dim": config.d_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", **scaling, "rope_theta": config.rope_theta},
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": "float32",
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
    }
