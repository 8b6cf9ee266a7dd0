"""Import Llama and Qwen3 models of the `transformers` library as runs, with the same logits.

Nothing in the folder is trusted: checksums are checked where there are any, sizes before memory is taken. A setting
that minitx lacks, or does not know, is refused by its name.
"""

import dataclasses
import json
import math
import os
import re
import reprlib
from pathlib import Path
from typing import Any

import torch

from minitx.config import ModelConfig
from minitx.config.model import MAX_WIDTH
from minitx.config.rope import LENGTH, NUMBERS, RopeScaling
from minitx.data.json_tokenizer import MAX_BYTES, JsonTokenizer
from minitx.data.tokenizer import Tokenizer
from minitx.interop.hf import ARCHITECTURES, CHECKSUM_FILE, FILES, README, SETTINGS, TOKENIZER_FILES, renamed_parameters
from minitx.interop.hf_weights import INDEX, OTHER_WEIGHTS, WEIGHTS, Weights, open_weights
from minitx.model import Transformer
from minitx.model_size import parameter_count, require_memory
from minitx.system.errors import require
from minitx.system.fields import Fields, parse_json
from minitx.system.files import MAX_JSON, read_file, read_json
from minitx.system.recorded import is_unchanged, read_record

TOKENIZERS = (TOKENIZER_FILES[0], JsonTokenizer.FILE, TOKENIZER_FILES[1])
"""The first of them in a folder is taken; the last is of older exports, or alters texts as Llama's."""
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
    "rope_interleaved": (False, None),
}
"""Keys that change what is computed, and the values that minitx computes with."""
FIXED_ROPE = {
    "rope_type": ("default", "dynamic", *NUMBERS),
    "type": ("default", "dynamic", *NUMBERS),
    "partial_rotary_factor": (1.0, None),
}
"""The same inside rope_parameters, or rope_scaling in older files. dynamic changes nothing up to the context length."""
READ = {*SETTINGS.values(), "model_type", "vocab_size", "head_dim", "rope_theta", "rope_parameters", "rope_scaling"}
READ |= {"layer_types", "sliding_window"}
HARMLESS = re.compile(
    "_?(model_)?name_or_path|_commit_hash|_?attn_implementation|_attn_implementation_autoset|architectures|(torch_)?dtype|"
    "transformers_version|use_cache|use_return_dict|return_dict(_in_generate)?|initializer_range|"
    "output_(attentions|hidden_states|scores)|attention_dropout|max_window_layers|chunk_size_feed_forward|prefix|"
    "((decoder_)?start|bos|eos|pad|sep|unk)_token_id|tokenizer_class|id2label|label2id|num_labels|problem_type|"
    "finetuning_task|task_specific_params|(max|min)_length|do_sample|temperature|top_[kp]|typical_p|num_beams|"
    "repetition_penalty|is_llama_config|transformers\\.js_config|unsloth_(fixed|version)"
)
"""Keys that say nothing about the logits."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": (llama := {"tie_word_embeddings": False, "rope_theta": 10000.0}),
    "qwen3": {**llama, "head_dim": 128, "num_key_value_heads": 32},
}
"""What transformers takes where a key is missing."""
MAX_VOCABULARY = 1 << 24


def import_folder(
    folder: Path, other: Path | None = None, context_length: int | None = None
) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer in a folder; raises UserError for what is damaged, or what minitx cannot hold.

    The tokenizer is taken from the folder `other` if `folder` has none. context_length: as in `import_model`.
    """
    check_checksums(folder)
    model = import_model(folder, context_length)
    files = [place / name for place in (folder, other or folder) for name in TOKENIZERS]
    found = [file for file in files if os.path.lexists(file)]
    require(bool(found), f"There is no tokenizer in {folder}: add its tokenizer.json.")
    return model, import_tokenizer(found[0], folder, model.vocab_size)


def import_tokenizer(file: Path, model_folder: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer in `file`, of a model with `vocab_size` tokens."""
    if file.name == JsonTokenizer.FILE:
        end = end_of_document(file.parent, model_folder)
        return JsonTokenizer(read_file(file, MAX_BYTES), end, vocab_size, str(file))
    tokenizer = Tokenizer.load(file)
    counts = f"{tokenizer.vocab_size} tokens, but the model was made for {vocab_size}"
    require(tokenizer.vocab_size == vocab_size, f"{file} has {counts}: name a folder where both fit.")
    return tokenizer


def end_of_document(tokenizer_folder: Path, model_folder: Path) -> int | str:
    """The token that ends a text: eos_token of tokenizer_config.json, or eos_token_id (the first) of config.json."""
    origin = tokenizer_folder / "tokenizer_config.json"
    if os.path.lexists(origin):
        about = Fields(parse_json(read_file(origin, MAX_JSON), str(origin)), str(origin))
        named = about.inside("eos_token", dict).content if isinstance(about.content.get("eos_token"), dict) else {}
        if about.has("eos_token"):
            return str(named.get("content", "")) or about.text("eos_token")
    origin = model_folder / "config.json"
    about = Fields(parse_json(read_file(origin, MAX_JSON), str(origin)), str(origin))
    if isinstance(about.content.get("eos_token_id"), list):
        return about.inside("eos_token_id", list, 1).whole(0)
    require(about.has("eos_token_id"), f"{origin} has no eos_token_id: name the token that ends a text.")
    return about.whole("eos_token_id")


def check_folder(folder: Path) -> None:
    """Raise UserError unless there is such a folder."""
    require(not folder.is_file(), f"{folder} is a file: name the folder that it is in.")
    remedy = f"give a folder with {' and '.join(FILES)}, or OWNER/NAME of a model there"
    require(folder.is_dir(), f"{folder} is neither a folder here nor OWNER/NAME on the Hub: {remedy}.")


def check_checksums(folder: Path) -> None:
    """Raise UserError where a file but the model card has changed since minitx exported it.

    A folder of others has no checksums.
    """
    if not os.path.lexists(folder / CHECKSUM_FILE):
        return
    listed = Fields(read_json(folder / CHECKSUM_FILE), str(folder / CHECKSUM_FILE)).inside("files", dict)
    for name in {*listed} - {README}:
        file, before = folder / str(name), read_record(listed, name)
        require(os.path.lexists(file), f"{file} is missing: get a whole copy of the folder, or export it again.")
        remedy = f"export it again, or remove {CHECKSUM_FILE} to import it as it is"
        require(is_unchanged(file, before), f"{file} has changed since minitx exported it: {remedy}.")


def import_model(folder: Path, context_length: int | None = None) -> Transformer:
    """The model in a folder with config.json and weights; raises UserError when minitx cannot hold it.

    context_length: the most tokens that it shall see; no weight depends on them.
    """
    check_folder(folder)
    has_weights = any(os.path.lexists(folder / name) for name in (WEIGHTS, INDEX))
    missing = [name for name in FILES if not (has_weights if name == WEIGHTS else os.path.lexists(folder / name))]
    found = [name for name in OTHER_WEIGHTS if missing == [WEIGHTS] and (folder / name).exists()]
    remedy = f", only {found[0]}: save the weights as safetensors" if found else ": get a whole copy, or name another"
    absent = " and no ".join(missing)
    require(not missing, f"{folder} holds no model that minitx can read: there is no {absent} in it{remedy}.")
    origin = folder / "config.json"
    content = parse_json(read_file(origin, MAX_JSON), str(origin))
    config, vocab_size = imported_config(content, str(origin), context_length)
    with open_weights(folder) as weights:
        require_fit(config, vocab_size, weights)
        model = Transformer(config, vocab_size)
        fill(model, weights)
    return model


def require_fit(config: ModelConfig, vocab_size: int, weights: Weights) -> None:
    """Raise UserError, before memory is taken, unless there are as many parameters as `config` describes."""
    count, there = parameter_count(config, vocab_size), sum(map(math.prod, weights.shapes.values()))
    described = f"config.json describes {count:,} parameters, but {weights.origin} holds {there:,}"
    require(count <= there, f"{described}: they do not fit.")
    require_memory(config, vocab_size, torch.device("cpu"), training=False)


@torch.no_grad()
def fill(model: Transformer, weights: Weights) -> None:
    """Copy weights into `model`; raises UserError where they are others than its parameters."""
    shapes, origin = dict(weights.shapes), weights.origin
    if model.config.tie_embeddings and shapes.pop("lm_head.weight", None) is not None:
        is_tied = torch.equal(weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight"))
        require(is_tied, f"config.json ties the embeddings, but {origin} holds two: set tie_word_embeddings to false.")
    parameters = renamed_parameters(model)
    odd = sorted(parameters.keys() ^ shapes.keys())
    require(not odd, f"{origin} and config.json do not fit: {', '.join(odd[:3])} is missing or unknown.")
    for name, parameter in parameters.items():
        expected = [*parameter.shape]
        fault = f"{origin} and config.json do not fit: {name} is {shapes[name]}, not {expected}."
        require(shapes[name] == expected, fault)
        weight = weights.get(name)
        require(weight.is_floating_point(), f"{origin} holds {name} in {weight.dtype}: save it as floating point.")
        require(bool(parameter.copy_(weight).isfinite().all()), f"{origin} is damaged: {name} holds infinity or NaN.")


def imported_config(
    content: Any, origin: str = "config.json", context_length: int | None = None
) -> tuple[ModelConfig, int]:
    """Our settings and the vocabulary size of a config.json of transformers; raises UserError where minitx lacks it.

    context_length: as in `import_model`.
    """
    kinds = {model_type: qk_norm for qk_norm, (model_type, _) in ARCHITECTURES.items()}
    kind = Fields(content, origin).text("model_type")
    require(kind in kinds, f"The model is of type {kind!r}, but only {' and '.join(kinds)} can be imported.")
    given = Fields({**DEFAULTS[kind], **content}, origin)
    tables = [name for name in ("rope_scaling", "rope_parameters") if given.has(name)]
    require(len(tables) < 2, f"{origin} has both rope_scaling and rope_parameters: leave one out.")
    rope = given.inside(tables[0], dict) if tables else Fields({}, origin)
    rope_type = str(rope.content.get("rope_type", rope.content.get("type", "default")))
    numbers = {*NUMBERS.get(rope_type, ()), *({"factor", LENGTH} if rope_type == "dynamic" else ())}
    for fields, fixed, free in ((given, FIXED, READ), (rope, FIXED_ROPE, {"rope_theta", *numbers})):
        for name, value in fields.content.items():
            setting = f"{origin} sets {fields.label(name)} to {reprlib.repr(value)}"
            unknown = f"{setting}, which minitx does not know: take it out if no logit depends on it."
            require(name in fixed or name in free or HARMLESS.fullmatch(name) is not None, unknown)
            lacks = f"{setting}, but minitx has only {', '.join(map(json.dumps, fixed.get(name, ())[:5]))}."
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
    head_dim = given.whole("head_dim", 1, MAX_WIDTH) if given.has("head_dim") else None
    is_usual = head_dim is None or head_dim * settings["n_head"] == settings["d_model"]
    config = ModelConfig(
        **settings,
        head_width=None if is_usual else head_dim,
        rope_scaling=imported_scaling(rope_type, rope, settings["context_length"]),
        norm_eps=given.number("rms_norm_eps"),
        tie_embeddings=given.content["tie_word_embeddings"],
        qk_norm=kinds[kind],
        rope_theta=theta,
    )
    shorter = min(config.context_length, context_length or config.context_length)
    return dataclasses.replace(config, context_length=shorter), given.whole("vocab_size", 1, MAX_VOCABULARY)


def imported_scaling(rope_type: str, rope: Fields, context_length: int) -> RopeScaling | None:
    """Our setting for scaled rotary positions, with the numbers that transformers takes where they are missing."""
    if rope_type not in NUMBERS:
        return None
    missing: dict[str, float] = {LENGTH: context_length}
    if rope_type == "yarn":
        missing |= {"beta_fast": 32, "beta_slow": 1}
        missing["attention_factor"] = 0.1 * math.log(max(rope.number("factor", 1e-9), 1)) + 1
    numbers = {name: rope.number(name) if rope.has(name) else missing.get(name, 0) for name in NUMBERS[rope_type]}
    return {"rope_type": rope_type, **numbers}
