"""Defaults, checks and properties of the settings."""

from __future__ import annotations

from typing import Any

import pytest

from minitx.config import Config, DataConfig, GenerateConfig, LogConfig, ModelConfig, TokenizerConfig, TrainConfig
from minitx.config.probes import read_probe
from minitx.system.errors import UserError, nearest


def test_defaults_are_valid_and_derived_values_follow() -> None:
    model = Config().model
    assert model.d_head * model.n_head == model.d_model
    assert model.kv_heads == model.n_head
    assert ModelConfig(d_model=768, n_head=12).ff_width == 2048
    assert ModelConfig(d_model=192, n_head=4, d_ff=7).ff_width == 7
    assert ModelConfig(n_head=4, n_kv_head=2).kv_heads == 2


def test_sizes_of_latent_attention_and_of_pruned_layers_follow() -> None:
    latent = ModelConfig(d_model=192, n_head=4, attention="latent")
    assert (latent.latent_width, latent.rotary_width, ModelConfig(d_model=192, n_head=4).rotary_width) == (96, 24, 48)
    assert ModelConfig(d_model=12, n_head=2, attention="latent").rotary_width == 4
    pruned = ModelConfig(n_layer=3, d_model=192, n_head=6, n_kv_head=3, kept_heads=[[0, 4, 5], [], [2, 3]])
    assert [pruned.heads_in(layer) for layer in range(3)] == [[0, 4, 5], [], [2, 3]]
    assert [pruned.kv_heads_in(layer) for layer in range(3)] == [[0, 2], [], [1]]
    assert ModelConfig(n_head=4).heads_in(3) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        (ModelConfig, {"n_layer": 0}, "model.n_layer is 0"),
        (ModelConfig, {"d_model": 33, "n_head": 1}, "model.d_model is 33, but it must be even"),
        (ModelConfig, {"n_kv_head": 3, "n_head": 4}, "model.n_kv_head is 3, .*: take 1, 2, 4"),
        (ModelConfig, {"n_kv_head": 0}, "model.n_kv_head is 0"),
        (ModelConfig, {"d_latent": 8}, "model.d_latent is 8, but only latent attention has it"),
        (ModelConfig, {"attention": "latent", "d_latent": 0}, "model.d_latent is 0"),
        (ModelConfig, {"attention": "latent", "d_rotary": 5}, "model.d_rotary is 5, but it must be even"),
        (ModelConfig, {"attention": "latent", "d_rotary": 0}, "model.d_rotary is 0"),
        (ModelConfig, {"attention": "latent", "n_kv_head": 2}, "model.n_kv_head is 2, but latent attention"),
        (ModelConfig, {"n_layer": 2, "kept_heads": [[0]]}, "model.kept_heads is for 1 layers"),
        (ModelConfig, {"n_layer": 2, "kept_heads": [[0], [4]]}, r"kept_heads has \[4\] for layer 1"),
        (ModelConfig, {"n_layer": 2, "kept_heads": [[0], [2, 1]]}, r"kept_heads has \[2, 1\] for layer 1"),
        (ModelConfig, {"n_layer": 2, "kept_heads": [[], []]}, "leaves no head at all"),
        (ModelConfig, {"dropout": 1.0}, "model.dropout is 1.0"),
        (ModelConfig, {"d_ff": 0}, "model.d_ff is 0"),
        (ModelConfig, {"rope_theta": 0.0}, "model.rope_theta"),
        (ModelConfig, {"norm_eps": 0.0}, "model.norm_eps"),
        (DataConfig, {"val_fraction": 0.0}, "data.val_fraction is 0.0"),
        (DataConfig, {"source": ""}, "data.source is empty"),
        (DataConfig, {"max_documents": 0}, "data.max_documents is 0"),
        (TokenizerConfig, {"vocab_size": 100}, "tokenizer.vocab_size is 100"),
        (TokenizerConfig, {"vocab_size": None}, "tokenizer.vocab_size is None"),
        (TokenizerConfig, {"type": "word", "vocab_size": 299}, "tokenizer.vocab_size is 299, but word needs 300"),
        (TrainConfig, {"steps": 0}, "train.steps is 0"),
        (TrainConfig, {"learning_rate": 0.0}, "train.learning_rate is 0.0"),
        (TrainConfig, {"beta2": 1.0}, "train.beta2 is 1.0"),
        (TrainConfig, {"decay_fraction": 1.5}, "train.decay_fraction is 1.5"),
        (TrainConfig, {"grad_clip": -1.0}, "train.grad_clip is -1.0"),
        (TrainConfig, {"sample_prompt": ""}, "train.sample_prompt is empty"),
        (LogConfig, {"every": 0}, "log.every is 0"),
        (LogConfig, {"probes": ["a", ""]}, "log.probes holds an empty text"),
        (LogConfig, {"probes": [{"links": []}]}, "a probe is a text or has the keys text and links"),
        (LogConfig, {"probes": [{"text": "a b", "link": []}]}, "a probe is a text or has the keys"),
        (LogConfig, {"probes": [{"text": "a b", "links": [{"from": "b"}]}]}, "a link has from, to"),
        (LogConfig, {"probes": [{"text": "a b", "links": ["b"]}]}, "a link has from, to"),
        (LogConfig, {"probes": [{"text": "a b", "links": [{"from": "b", "to": "c"}]}]}, "'c' stands nowhere in"),
        (LogConfig, {"probes": [{"text": "a b", "links": [{"from": "a", "to": "b"}]}]}, "attention looks back"),
        (LogConfig, {"probes": [{"text": "a b", "links": [{"from": "b", "to": "b"}]}]}, "attention looks back"),
        (LogConfig, {"probes": [{"text": "a a b", "links": [{"from": "b", "to": "a"}]}]}, "2 times .*, as in 'a#1'"),
        (LogConfig, {"probes": [{"text": "a a b", "links": [{"from": "b", "to": "a#3"}]}]}, "'a' stands 2 times"),
        (
            LogConfig,
            {"probes": [{"text": "a b", "links": [{"from": "b", "to": "a"}, {"from": "b", "to": "a"}]}]},
            "two links of one name",
        ),
        (Config, {"seed": -1}, "seed is -1"),
        (Config, {"threads": 0}, "threads is 0"),
        (Config, {"out": ""}, "out is empty"),
        (GenerateConfig, {"prompt": ""}, "The prompt is empty"),
        (GenerateConfig, {"prompt": "a", "prompt_file": "b"}, "Both --prompt and --prompt_file"),
        (GenerateConfig, {"temperature": -0.1}, "temperature is -0.1"),
        (GenerateConfig, {"top_p": 0.0}, "top_p is 0.0"),
        (GenerateConfig, {"top_k": 0}, "top_k is 0"),
        (GenerateConfig, {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (GenerateConfig, {"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        (GenerateConfig, {"stop": ["a", ""]}, "stop holds an empty text"),
    ],
)
def test_values_that_cannot_work_are_named(section: Any, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        section(**values)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_characters_need_no_vocabulary_size() -> None:
    assert TokenizerConfig(type="char", vocab_size=None).vocab_size is None


def test_one_stop_text_or_several() -> None:
    assert GenerateConfig(stop="ab").stops == ["ab"]
    assert GenerateConfig(stop=["a", "b"]).stops == ["a", "b"]


def test_nearest() -> None:
    assert nearest("n_heads", ["n_layer", "n_head"]) == " (did you mean n_head?)"
    assert nearest("zzz", ["n_layer", "n_head"]) == ""
    assert nearest("--train.dropout", ["--train.optimizer", "--model.dropout"]) == " (did you mean --model.dropout?)"
    assert nearest("--temp", ["--stream", "--temperature"]) == " (did you mean --temperature?)"
    assert nearest("--max_tokens", ["--min_p", "--max_new_tokens"]) == " (did you mean --max_new_tokens?)"
    assert nearest("--precision", ["--json", "--seconds", "--dtype"]) == ""  # for dashes are no likeness


def test_links_are_found_by_words_and_number() -> None:
    text = "Sara's cat didn't see C#; the cat saw her, she said."
    links = [
        {"from": "cat#2", "to": "cat#1"},
        {"name": "x", "from": "her", "to": "didn't see"},
        {"from": "said", "to": "C#"},
    ]
    probe = read_probe({"text": text, "links": links})
    assert [text[slice(*link.source)] for link in probe.links] == ["cat", "her", "said"]
    assert [text[slice(*link.target)] for link in probe.links] == ["cat", "didn't see", "C#"]
    assert [link.name for link in probe.links] == ["cat#2 → cat#1", "x", "said → C#"]
    assert probe.links[0].target[0] < probe.links[0].source[0]


def test_default_probes_have_the_links_of_the_literature() -> None:
    names = {link.name for probe in LogConfig().read_probes() for link in probe.links}
    assert {"it → animal", "it → street", "telescope → man", "telescope → astronomer", "they → animals"} <= names
    assert {"her → Sara", "her → Maya", "because → cross", "cross → didn't", "animals → tired"} <= names
    LogConfig().probes.clear()
    assert LogConfig().probes, "the defaults are one list"
