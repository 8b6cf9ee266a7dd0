"""Export and import against the models of `transformers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from minitx.config import ModelConfig
from minitx.interop.hf import export_model
from minitx.interop.hf_import import import_model
from minitx.model import Transformer
from minitx.system.errors import UserError

transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

SHAPES = {
    "llama": ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=24, qk_norm=False),
    "llama, grouped, tied": ModelConfig(
        n_layer=3, n_head=4, n_kv_head=2, d_model=32, d_ff=48, context_length=24, qk_norm=False, tie_embeddings=True
    ),
    "qwen3": ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=24, qk_norm=True, rope_theta=500.0),
    "qwen3, multi-query": ModelConfig(n_layer=2, n_head=4, n_kv_head=1, d_model=32, context_length=24, norm_eps=1e-3),
}


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
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tie_embeddings,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = import_model(tmp_path).eval()
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def test_there_and_back_is_the_same_model(tmp_path: Path) -> None:
    model = random_model(SHAPES["llama, grouped, tied"])
    export_model(model, tmp_path, end_of_document=0)
    back = import_model(tmp_path)
    assert back.config == ModelConfig(**{**vars(model.config), "n_kv_head": 2, "d_ff": 48})
    for (name, ours), (_, theirs) in zip(model.named_parameters(), back.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "gpt2"}, "of type 'gpt2', but only llama and qwen3"),
        ({"attention_bias": True}, "sets attention_bias to True, but minitx has only false"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "sets rope_parameters.rope_type to 'yarn'"),
        ({"head_dim": 64}, "heads are 64 wide"),
        ({"num_hidden_layers": 1}, "do not fit: model.layers.1"),
        ({"num_hidden_layers": 5}, "describes 70,816 parameters, but .* holds 30,688"),
        ({"intermediate_size": 7}, r"model\.layers\.0\.mlp\.gate_proj\.weight is \[96, 32\], not \[7, 32\]"),
    ],
)
def test_what_cannot_be_imported_is_named(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    export_model(random_model(SHAPES["llama"]), tmp_path, end_of_document=0)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
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
    with pytest.raises(UserError, match=r"holds no model.*there is no config\.json and no model\.safetensors in it\.$"):
        import_model(tmp_path)
    with pytest.raises(UserError, match=r"There is no folder .*nosuch: name one that holds config\.json"):
        import_model(tmp_path / "nosuch")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"config.json is damaged: it is not JSON"):
        import_model(tmp_path)
