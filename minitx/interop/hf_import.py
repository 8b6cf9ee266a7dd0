"""Import Llama and Qwen3 models of the `transformers` library as runs, with the same logits.

Nothing in the folder is trusted: checksums are checked where there are any, sizes before memory is taken. A setting
that minitx lacks, or does not know, is refused by its name.
"""

import json
import math
import os
import re
import reprlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from minitx.config import ModelConfig
from minitx.config.model import MAX_WIDTH
from minitx.data.tokenizer import Tokenizer
from minitx.interop.hf import ARCHITECTURES, CHECKSUM_FILE, FILES, SETTINGS, TOKENIZER_FILES, renamed_parameters
from minitx.model import Transformer
from minitx.model_size import parameter_count, require_memory
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields, parse_json
from minitx.system.files import MAX_JSON, open_regular, read_file, read_json, reading
from minitx.system.recorded import is_unchanged, read_record

OTHER_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "partial_rotary_factor": (1.0, None),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
}
"""Keys that change what is computed, and the values that minitx computes with."""
FIXED_ROPE = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1.0, None)}
"""The same inside rope_parameters, or rope_scaling in older files."""
READ = {*SETTINGS.values(), "model_type", "vocab_size", "head_dim", "rope_theta", "rope_parameters", "rope_scaling"}
READ |= {"layer_types", "sliding_window"}
HARMLESS = re.compile(
    "_?name_or_path|_commit_hash|_?attn_implementation|_attn_implementation_autoset|architectures|(torch_)?dtype|"
    "transformers_version|use_cache|use_return_dict|return_dict(_in_generate)?|initializer_range|"
    "output_(attentions|hidden_states|scores)|attention_dropout|max_window_layers|chunk_size_feed_forward|prefix|"
    "((decoder_)?start|bos|eos|pad|sep)_token_id|tokenizer_class|id2label|label2id|num_labels|problem_type|"
    "finetuning_task|task_specific_params|(max|min)_length|do_sample|temperature|top_[kp]|typical_p|num_beams|"
    "repetition_penalty"
)
"""Keys that say nothing about the logits."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": (llama := {"tie_word_embeddings": False, "rope_theta": 10000.0}),
    "qwen3": {**llama, "head_dim": 128, "num_key_value_heads": 32},
}
"""What transformers takes where a key is missing."""
MAX_VOCABULARY = 1 << 24


def import_folder(folder: Path) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer in a folder; raises UserError for what is damaged, or what minitx cannot hold."""
    check_checksums(folder)
    model = import_model(folder)
    names = [name for name in TOKENIZER_FILES if os.path.lexists(folder / name)]
    other = "only a tokenizer.json, of another library" if (folder / "tokenizer.json").exists() else "none"
    require(bool(names), f"minitx needs a tokenizer of SentencePiece, but {folder} has {other}: add tokenizer.model.")
    tokenizer = Tokenizer.load(folder / names[0])
    counts = f"{tokenizer.vocab_size} tokens, but the model was made for {model.vocab_size}"
    require(
        tokenizer.vocab_size == model.vocab_size, f"{folder / names[0]} has {counts}: name a folder where both fit."
    )
    return model, tokenizer


def check_checksums(folder: Path) -> None:
    """Raise UserError where a file has changed since minitx exported it; a folder of others has no checksums."""
    if not os.path.lexists(folder / CHECKSUM_FILE):
        return
    listed = Fields(read_json(folder / CHECKSUM_FILE), str(folder / CHECKSUM_FILE)).inside("files", dict)
    for name in listed:
        file, before = folder / str(name), read_record(listed, name)
        remedy = f"export it again, or remove {CHECKSUM_FILE} to import it as it is"
        require(is_unchanged(file, before), f"{file} has changed since minitx exported it: {remedy}.")


def import_model(folder: Path) -> Transformer:
    """The model in a folder with config.json and model.safetensors; raises UserError when minitx cannot hold it."""
    require(folder.is_dir(), f"There is no folder {folder}: name one that holds {' and '.join(FILES)}.")
    missing = [name for name in FILES if not os.path.lexists(folder / name)]
    found = [name for name in OTHER_WEIGHTS if missing == ["model.safetensors"] and (folder / name).exists()]
    remedy = f", only {found[0]}: save the weights as one file of safetensors" if found else ""
    absent = " and no ".join(missing)
    require(not missing, f"{folder} holds no model that minitx can read: there is no {absent} in it{remedy}.")
    file, origin = folder / "model.safetensors", folder / "config.json"
    config, vocab_size = imported_config(parse_json(read_file(origin, MAX_JSON), str(origin)), str(origin))
    with open_regular(file) as opened, reading(file):
        length = int.from_bytes(opened.read(8), "little")
    require(length <= MAX_JSON, f"{file} is damaged: its header would have {length:,} bytes, at most {MAX_JSON:,} fit.")
    try:
        with safe_open(file, "pt") as weights:  # checks that the file is as large as its header says
            return filled_model(config, vocab_size, weights, str(file))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as weights ({error}): get a whole copy.") from error


@torch.no_grad()
def filled_model(config: ModelConfig, vocab_size: int, weights: Any, origin: str) -> Transformer:
    """The model with `weights` from the file `origin`, held against `config` before memory is taken."""
    shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 (it is no dict)
    if config.tie_embeddings and shapes.pop("lm_head.weight", None) is not None:
        is_tied = torch.equal(weights.get_tensor("lm_head.weight"), weights.get_tensor("model.embed_tokens.weight"))
        require(is_tied, f"config.json ties the embeddings, but {origin} holds two: set tie_word_embeddings to false.")
    count, there = parameter_count(config, vocab_size), sum(map(math.prod, shapes.values()))
    require(
        count <= there, f"config.json describes {count:,} parameters, but {origin} holds {there:,}: they do not fit."
    )
    require_memory(config, vocab_size, torch.device("cpu"), training=False)
    model = Transformer(config, vocab_size)
    parameters = renamed_parameters(model)
    odd = sorted(parameters.keys() ^ shapes.keys())
    require(not odd, f"{origin} and config.json do not fit: {', '.join(odd[:3])} is missing or unknown.")
    for name, parameter in parameters.items():
        expected = [*parameter.shape]
        fault = f"{origin} and config.json do not fit: {name} is {shapes[name]}, not {expected}."
        require(shapes[name] == expected, fault)
        weight = weights.get_tensor(name)
        require(weight.is_floating_point(), f"{origin} holds {name} in {weight.dtype}: save it as floating point.")
        require(bool(parameter.copy_(weight).isfinite().all()), f"{origin} is damaged: {name} holds infinity or NaN.")
    return model


def imported_config(content: Any, origin: str = "config.json") -> tuple[ModelConfig, int]:
    """Our settings and the vocabulary size of a config.json of transformers; raises UserError where minitx lacks it."""
    kinds = {model_type: qk_norm for qk_norm, (model_type, _) in ARCHITECTURES.items()}
    kind = Fields(content, origin).text("model_type")
    require(kind in kinds, f"The model is of type {kind!r}, but only {' and '.join(kinds)} can be imported.")
    given = Fields({**DEFAULTS[kind], **content}, origin)
    tables = [name for name in ("rope_scaling", "rope_parameters") if given.has(name)]
    require(len(tables) < 2, f"{origin} has both rope_scaling and rope_parameters: leave one out.")
    rope = given.inside(tables[0], dict) if tables else Fields({}, origin)
    for fields, fixed, free in ((given, FIXED, READ), (rope, FIXED_ROPE, {"rope_theta"})):
        for name, value in fields.content.items():
            setting = f"{origin} sets {fields.label(name)} to {reprlib.repr(value)}"
            unknown = f"{setting}, which minitx does not know: take it out if no logit depends on it."
            require(name in fixed or name in free or HARMLESS.fullmatch(name) is not None, unknown)
            lacks = f"{setting}, but minitx has only {json.dumps(fixed.get(name, ('',))[0])}."
            require(name not in fixed or value in fixed[name], lacks)
    others = ("n_kv_head", "norm_eps", "tie_embeddings")
    settings: dict[str, Any] = {
        ours: given.whole(theirs, 1, MAX_WIDTH) for ours, theirs in SETTINGS.items() if ours not in others
    }
    if given.has("num_key_value_heads"):
        settings["n_kv_head"] = given.whole("num_key_value_heads", 1, MAX_WIDTH)
    is_full = given.content.get("layer_types") in (None, ["full_attention"] * settings["n_layer"])
    is_full &= kind == "qwen3" or not given.has("sliding_window")  # Qwen3 ignores the width without use_sliding_window
    require(is_full, f"{origin} asks for attention in windows, or in other layers than it has: minitx lacks that.")
    given.expect(type(given.content["tie_word_embeddings"]) is bool, "tie_word_embeddings", "true or false")
    theta, *_ = [fields.number("rope_theta") for fields in (rope, given) if "rope_theta" in fields.content]
    config = ModelConfig(
        **settings,
        norm_eps=given.number("rms_norm_eps"),
        tie_embeddings=given.content["tie_word_embeddings"],
        qk_norm=kinds[kind],
        rope_theta=theta,
    )
    head_dim = given.whole("head_dim", 1, MAX_WIDTH) if given.has("head_dim") else config.d_head
    require(head_dim == config.d_head, f"The heads are {head_dim} wide, but d_model / n_head is {config.d_head}.")
    return config, given.whole("vocab_size", 1, MAX_VOCABULARY)
