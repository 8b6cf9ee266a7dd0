"""Small random models of `transformers` with tokenizers of their own, as others save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.data.test_json_tokenizer import byte_level

VOCABULARY = 512


def small_qwen(seed: int = 0) -> Any:
    """Wide heads, tied embeddings, scaled positions: what minitx itself never makes."""
    import transformers

    torch.manual_seed(seed)
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
            rope_parameters=rope | {"original_max_position_embeddings": 32},
            tie_word_embeddings=True,
            eos_token_id=0,
            bos_token_id=None,
        )
    ).eval()


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, as Qwen has them."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_level("qwen").save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def save_model(folder: Path, seed: int = 0) -> Any:
    """Write a model in bfloat16 with its tokenizer, and return it."""
    model = small_qwen(seed)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    save_tokenizer(folder)
    return model
