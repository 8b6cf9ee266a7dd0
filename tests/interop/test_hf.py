"""Export and import against the models of `transformers`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minitx.config import ModelConfig
from minitx.config.rope import RopeScaling
from minitx.interop.hf import export_model, exported_config, renamed_parameters
from minitx.interop.hf_import import import_model, imported_config
from minitx.interop.series import checkpoint_folders
from minitx.model import Transformer
from minitx.model_size import parameter_count
from minitx.system.errors import UserError

transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

SCALINGS: list[RopeScaling] = [
    {"rope_type": "linear", "factor": 3.0},
    {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 0.5,
        "high_freq_factor": 1.5,
        "original_max_position_embeddings": 16,
    },
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 1.5,
        "beta_slow": 0.5,
        "attention_factor": 1.3,
        "original_max_position_embeddings": 16,
    },
]
SHAPES = {
    "llama": ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=24, qk_norm=False),
    "llama, grouped, tied": ModelConfig(
        n_layer=3, n_head=4, n_kv_head=2, d_model=32, d_ff=48, context_length=24, qk_norm=False, tie_embeddings=True
    ),
    "qwen3": ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=24, qk_norm=True, rope_theta=500.0),
    "qwen3, multi-query": ModelConfig(n_layer=2, n_head=4, n_kv_head=1, d_model=32, context_length=24, norm_eps=1e-3),
    "qwen3, wide heads, tied": ModelConfig(
        n_layer=2, n_head=6, n_kv_head=3, head_width=16, d_model=40, context_length=24, tie_embeddings=True
    ),
    **{
        f"llama, {scaling['rope_type']}": ModelConfig(
            n_layer=2, n_head=4, d_model=64, context_length=24, qk_norm=False, rope_theta=50.0, rope_scaling=scaling
        )
        for scaling in SCALINGS
    },
}
"""Of the scaled positions, every frequency is turned up to three times, so that all of them count."""


def random_model(config: ModelConfig) -> Transformer:
    """Every parameter random, the norms too, so that none can be forgotten unnoticed."""
    torch.manual_seed(3)
    model = Transformer(config, vocab_size=61).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_gives_the_same_logits(shape: str, tmp_path: Path) -> None:
    model = random_model(SHAPES[shape])
    export_model(model, tmp_path, end_of_document=0)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs.eval()(tokens).logits, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_import_of_what_transformers_saved(shape: str, tmp_path: Path) -> None:
    """A model made and saved by transformers, not by our export."""
    config = SHAPES[shape]
    kind = transformers.Qwen3Config if config.qk_norm else transformers.LlamaConfig
    torch.manual_seed(5)
    theirs = transformers.AutoModelForCausalLM.from_config(
        kind(
            vocab_size=61,
            hidden_size=config.d_model,
            intermediate_size=config.ff_width,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.kv_heads,
            head_dim=config.d_head,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta, **(config.rope_scaling or {})},
            tie_word_embeddings=config.tie_embeddings,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = import_model(tmp_path).eval()
    assert dataclasses.replace(ours.config, n_kv_head=config.n_kv_head, d_ff=config.d_ff) == config
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def test_scaling_with_what_transformers_takes_where_it_is_missing(tmp_path: Path) -> None:
    """yarn's own attention factor, and dynamic scaling, which begins beyond the context length."""
    sizes = {"vocab_size": 61, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 64}
    tokens = torch.randint(0, 61, (2, 64), generator=torch.Generator().manual_seed(0))
    for number, scaling in enumerate(({"rope_type": "yarn"}, {"rope_type": "dynamic"})):
        rope = {**scaling, "factor": 4.0, "rope_theta": 1e4}
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, rope_parameters=rope)).eval()
        theirs.save_pretrained(tmp_path / str(number))
        with torch.no_grad():
            logits = import_model(tmp_path / str(number)).eval()(tokens)
            torch.testing.assert_close(logits, theirs(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shards_of_two_bytes_a_weight(dtype: torch.dtype, tmp_path: Path) -> None:
    """Several files with an index, and a buffer that older versions of transformers saved."""
    model = random_model(SHAPES["qwen3, wide heads, tied"]).to(dtype)
    export_model(model, tmp_path, end_of_document=0)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(weights)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    places = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(sorted(weights))}
    for file in {*places.values()}:
        save_file({name: weights[name] for name in weights if places[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    back = renamed_parameters(import_model(tmp_path))
    assert sorted(back) == names
    assert all(torch.equal(back[name], weights[name].float()) for name in names)
    (tmp_path / "model-1.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"model-1\.safetensors is missing.*: get a whole copy"):
        import_model(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(UserError, match=r"weight_map\.a is '\.\./model\.safetensors', but a file of safetensors"):
        import_model(tmp_path)


def test_there_and_back_is_the_same_model(tmp_path: Path) -> None:
    model = random_model(SHAPES["llama, grouped, tied"])
    export_model(model, tmp_path, end_of_document=0)
    back = import_model(tmp_path)
    assert back.config == ModelConfig(**{**vars(model.config), "n_kv_head": 2, "d_ff": 48})
    for (name, ours), (_, theirs) in zip(model.named_parameters(), back.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


LACKING = [
    ({"model_type": "gpt2"}, "of type 'gpt2', but only llama and qwen3"),
    ({"attention_bias": True}, "sets attention_bias to True, but minitx has only false"),
    ({"mlp_bias": True}, "sets mlp_bias"),
    ({"hidden_act": "gelu"}, "sets hidden_act to 'gelu', but minitx has only \"silu\""),
    ({"quantization_config": {"bits": 4}}, "sets quantization_config"),
    ({"partial_rotary_factor": 0.5}, "sets partial_rotary_factor"),
    ({"model_type": "qwen2"}, "of type 'qwen2', but only llama and qwen3"),
    ({"num_experts": 8}, "sets num_experts to 8, which minitx does not know"),
    ({"rope_parameters": {"rope_type": "longrope"}}, "sets rope_parameters.rope_type to 'longrope', but .* \"linear\""),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.factor is missing"),
    (
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7}},
        "sets rope_parameters.mscale to 0.7, which minitx does not know",
    ),
    (
        {"rope_parameters": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 4, "high_freq_factor": 1}},
        "low_freq_factor must be below high_freq_factor",
    ),
    ({"rope_parameters": {"rope_theta": 1e4, "factor": 2.0}}, "sets rope_parameters.factor to 2.0"),
    (
        {"rope_parameters": None, "rope_scaling": {"type": "su", "factor": 2.0}},
        "sets rope_scaling.type to 'su'",
    ),
    ({"rope_scaling": {"type": "dynamic"}}, "both rope_scaling and rope_parameters"),
    ({"sliding_window": 8}, "windows"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "windows"),
    ({"embedding_multiplier": 12.0}, "sets embedding_multiplier to 12.0, which minitx does not know"),
    ({"head_dim": 64}, "describes 88,032 parameters, but .* holds 30,688"),
    ({"head_dim": 4}, r"q_proj\.weight is \[32, 32\], not \[16, 32\]"),
    ({"head_dim": 7}, "model.head_width is 7, but it must be even"),
    ({"tie_word_embeddings": True}, "ties the embeddings, but .* holds two"),
    ({"num_hidden_layers": 1}, "do not fit: model.layers.1"),
    ({"num_hidden_layers": 5}, "describes 70,816 parameters, but .* holds 30,688"),
    ({"intermediate_size": 7}, r"model\.layers\.0\.mlp\.gate_proj\.weight is \[96, 32\], not \[7, 32\]"),
]


@pytest.mark.parametrize(("change", "sentence"), LACKING)
def test_what_cannot_be_imported_is_named(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    """Older spellings and unknown keys were taken without a word, and logits were off by 10 and more."""
    export_model(random_model(SHAPES["llama"]), tmp_path, end_of_document=0)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
        import_model(tmp_path)


@pytest.mark.parametrize("kind", ["LlamaConfig", "Qwen3Config"])
def test_every_key_that_transformers_writes_is_known(kind: str) -> None:
    content = getattr(transformers, kind)(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    ).to_dict()
    config, vocab_size = imported_config({**content, "torch_dtype": "float32"})
    assert (config.d_model, config.n_head, vocab_size) == (64, 4, content["vocab_size"])
    with pytest.raises(UserError, match="use_sliding_window to True"):
        imported_config({**content, "use_sliding_window": True})


USUAL = {"architectures": ["…ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu"}
USUAL |= {"initializer_range": 0.02, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True}
USUAL |= {"bos_token_id": 1, "eos_token_id": [2, 3], "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
KEYS = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
KEYS += ["max_position_embeddings", "vocab_size", "rope_theta"]
LLAMA_3_SCALING: dict[str, object] = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
LLAMA_3_SCALING |= {"original_max_position_embeddings": 8192, "rope_type": "llama3"}


@pytest.mark.parametrize(
    ("sizes", "more", "parameters"),
    [
        (  # SmolLM2-135M
            (576, 1536, 30, 9, 3, 8192, 49152, 100000),
            {"model_type": "llama", "is_llama_config": True, "rope_interleaved": False, "rope_scaling": None}
            | {"pretraining_tp": 1, "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}},
            134_515_008,
        ),
        (  # Llama-3.2-1B
            (2048, 8192, 16, 32, 8, 131072, 128256, 500000.0),
            {"model_type": "llama", "head_dim": 64, "mlp_bias": False, "rope_scaling": LLAMA_3_SCALING},
            1_235_814_400,
        ),
        (  # Qwen3-0.6B
            (1024, 3072, 28, 16, 8, 40960, 151936, 1000000),
            {"model_type": "qwen3", "head_dim": 128, "max_window_layers": 28, "sliding_window": None}
            | {"use_sliding_window": False, "rope_scaling": None},
            596_049_920,
        ),
    ],
)
def test_models_as_they_are_published(sizes: tuple[int, ...], more: dict[str, object], parameters: int) -> None:
    """Every key of their config.json is known, and the parameters are as many as their authors count."""
    config, vocab_size = imported_config(USUAL | dict(zip(KEYS, sizes, strict=True)) | more, context_length=64)
    assert parameter_count(config, vocab_size) == parameters
    assert config.context_length == 64 and config.rope_theta == sizes[-1]


def test_what_is_missing_means_what_transformers_means() -> None:
    sizes = {"hidden_size": 4096, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 32}
    sizes |= {"vocab_size": 9, "max_position_embeddings": 8}
    for kind in ("llama", "qwen3"):
        config, _ = imported_config({**sizes, "model_type": kind, "rms_norm_eps": 1e-6})
        theirs = transformers.AutoConfig.for_model(kind, **sizes)
        assert config.kv_heads == theirs.num_key_value_heads and config.d_head == theirs.head_dim
        assert config.rope_theta == theirs.rope_parameters["rope_theta"]
        assert config.tie_embeddings == theirs.tie_word_embeddings
    config, _ = imported_config({**sizes, "hidden_size": 512, "model_type": "qwen3", "rms_norm_eps": 1e-6})
    assert config.d_head == transformers.AutoConfig.for_model("qwen3", **sizes).head_dim == 128


def test_every_odd_value_ends_in_a_sentence() -> None:
    content = exported_config(SHAPES["llama"], 61, 0)
    odd = [None, 10**400, 1e308, math.nan, math.inf, "64", 2.0, True, -1, 0, [], [[1]], {}, {"a": [1]}]
    taken = {key: [] for key in content}  # type: dict[str, list[object]]
    for key, value in itertools.product(content, odd):
        with contextlib.suppress(UserError):
            imported_config(content | {key: value})
            taken[key].append(value)
    assert taken["model_type"] == taken["hidden_act"] == taken["hidden_size"] == taken["num_attention_heads"] == []
    assert taken["rms_norm_eps"] == [2.0] and taken["num_key_value_heads"] == taken["head_dim"] == [None]
    for content in ([], 3, None, {}, [["model_type"]]):  # type: ignore[assignment]  # what JSON can hold
        with pytest.raises(UserError, match="is damaged"):
            imported_config(content)


def test_weights_that_are_not_finite_or_not_numbers_are_refused(tmp_path: Path) -> None:
    model = random_model(SHAPES["llama"])
    with torch.no_grad():
        model.final_norm.weight[3] = torch.inf
    export_model(model, tmp_path, end_of_document=0)
    with pytest.raises(UserError, match=r"model\.norm\.weight holds infinity or NaN"):
        import_model(tmp_path)
    weights = {name: weight.detach() for name, weight in renamed_parameters(random_model(SHAPES["llama"])).items()}
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.int8)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"holds model\.norm\.weight in torch\.int8"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"attention": "latent"}, "latent attention"), ({"kept_heads": [[0, 1], [3]]}, "lost heads by pruning")],
)
def test_what_transformers_cannot_hold_is_refused(settings: dict[str, object], sentence: str, tmp_path: Path) -> None:
    config = ModelConfig(n_layer=2, n_head=4, d_model=32, **settings)  # type: ignore[arg-type]  # values by name
    with pytest.raises(UserError, match=sentence):
        export_model(Transformer(config, vocab_size=61), tmp_path / "exported", end_of_document=0)
    assert not (tmp_path / "exported").exists()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model.*there is no config\.json and no model\.safetensors in it: "):
        import_model(tmp_path)
    with pytest.raises(UserError, match=r"nosuch is neither a folder here nor OWNER/NAME on the Hub: give a folder"):
        import_model(tmp_path / "nosuch")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"config.json is damaged: it is not JSON"):
        import_model(tmp_path)
    for read in (import_model, checkpoint_folders):
        with pytest.raises(UserError, match=r"config.json is a file: name the folder that it is in"):
            read(tmp_path / "config.json")
