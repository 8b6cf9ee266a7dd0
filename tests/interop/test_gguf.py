"""Export to GGUF against llama.cpp itself, and against the file's own reader."""

from __future__ import annotations

import itertools
import json
import random
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from torch.nn.functional import cross_entropy

from minitx.config import GenerateConfig, ModelConfig, TokenizerConfig
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.tokenizer import Tokenizer
from minitx.generation.generate import generate
from minitx.interop.gguf import export_gguf
from minitx.model import Transformer
from minitx.system.errors import UserError
from tests.data.test_json_tokenizer import byte_level
from tests.data.test_tokenizer import KINDS, TEXT, TOKENIZERS, TRICKY
from tests.small import small_text

gguf = pytest.importorskip("gguf", reason="gguf is an extra")

Kind = Literal["unigram", "bpe", "char", "word"]
SMALL = ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=256)
SHAPES: dict[str, tuple[Kind, ModelConfig]] = {
    "llama, char": ("char", replace(SMALL, qk_norm=False, rope_theta=500.0)),
    "llama, grouped, tied, bpe": ("bpe", replace(SMALL, n_kv_head=2, qk_norm=False, tie_embeddings=True)),
    "qwen3, grouped, unigram": ("unigram", replace(SMALL, n_kv_head=2, d_ff=48, norm_eps=1e-3)),
    "qwen3, multi-query, tied, word": ("word", replace(SMALL, n_kv_head=1, tie_embeddings=True)),
}
HARD = [*TRICKY, "", " a", "a ", "   a", "\t\tx", "a\rb", "\x01\x7f", "<s></s>", "    if x == 1:\n        return  y\n"]
HARD += ["== ====  ==", "été — 日本!", "日é", "<unk><0x41>"]


class LlamaCpp:
    """llama.cpp's server with a model of ours, on one thread and with a cache in float32."""

    def __init__(self, file: Path) -> None:
        llama = pytest.importorskip("xllamacpp", reason="xllamacpp is a test extra")
        options = llama.CommonParams()
        options.model.path = str(file)
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = options.n_parallel = 1
        options.warmup = options.fit_params = False
        options.verbosity = -1
        options.cache_type_k = options.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = llama.Server(options)

    def ask(self, verb: str, **content: Any) -> Any:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{verb}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.load(answer)

    def encode(self, text: str) -> list[int]:
        return list(self.ask("tokenize", content=text, parse_special=False)["tokens"])

    def complete(self, tokens: Sequence[int], new_tokens: int, vocab_size: int) -> tuple[list[int], torch.Tensor]:
        """New tokens of the highest probability, and the logarithms of all probabilities, (new, vocab)."""
        answer = self.ask(
            "completion",
            prompt=list(tokens),
            n_predict=new_tokens,
            temperature=0,
            n_probs=vocab_size,
            return_tokens=True,
        )
        steps = answer["completion_probabilities"]
        log_probabilities = torch.full((len(steps), vocab_size), torch.nan)
        for row, step in zip(log_probabilities, steps, strict=True):
            row[[entry["id"] for entry in step["top_logprobs"]]] = torch.tensor(
                [entry["logprob"] for entry in step["top_logprobs"]]
            )
        return answer["tokens"], log_probabilities


def trained(kind: Kind, config: ModelConfig) -> tuple[Transformer, Tokenizer]:
    """A model of a few steps, whose text no longer repeats one token."""
    text = small_text(400)
    tokenizer = Tokenizer.train([text], TokenizerConfig(kind, 310))
    ids = torch.tensor(tokenizer.encode(text))
    torch.manual_seed(0)
    model = Transformer(config, tokenizer.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(80):
        rows = torch.stack([ids[i : i + 65] for i in torch.randint(len(ids) - 65, (8,)).tolist()])
        loss = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def untrained(tokenizer: Tokenizer) -> Transformer:
    return Transformer(replace(SMALL, n_layer=1), tokenizer.vocab_size)


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_writes_the_same_text(shape: str, tmp_path: Path) -> None:
    """Wrong pairs of rotated components, swapped norms or another base give other logits at once."""
    kind, config = SHAPES[shape]
    model, tokenizer = trained(kind, config)
    export_gguf(model, tokenizer, tmp_path / "model.gguf", "trained")
    prompt = [tokenizer.end_of_document, *tokenizer.encode("the cat sat")]
    options = GenerateConfig(max_new_tokens=200, temperature=0.0)
    ours = [token for (token,) in generate(model, prompt, options, end_token=-1) if token is not None]
    assert len({*ours}) > 10
    theirs, log_probabilities = LlamaCpp(tmp_path / "model.gguf").complete(prompt, 200, model.vocab_size)
    assert theirs == ours
    with torch.no_grad():
        expected = model(torch.tensor([prompt + ours]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(log_probabilities, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    """But U+2581 is a space to it, and in unigram and word, unknown characters in a row are one unknown token."""
    tokenizer = TOKENIZERS[kind]
    has_bytes = export_gguf(untrained(tokenizer), tokenizer, tmp_path / "model.gguf", "untrained")
    assert has_bytes == (kind in ("bpe", "char"))
    llama = LlamaCpp(tmp_path / "model.gguf")
    of_unknown = [tokenizer.byte_tokens[byte] for byte in (0, *range(128, 256))] if not has_bytes else []
    draw = random.Random(0)
    starts = [draw.randrange(len(TEXT)) for _ in range(100)]
    for text in [*HARD, TEXT, *(" " * draw.randrange(40) + TEXT[start : start + 500] for start in starts)]:
        ids = [0 if id in of_unknown else id for id in tokenizer.encode(text.replace("▁", " "))]
        expected = [id for i, id in enumerate(ids) if id or i == 0 or ids[i - 1]]
        assert llama.encode(text) == expected, text[:100]
        assert llama.ask("detokenize", tokens=tokenizer.encode(text))["content"] == text


@pytest.mark.parametrize("shape", ["llama, grouped, tied, bpe", "qwen3, grouped, unigram"])
def test_the_file_holds_the_settings_and_weights(shape: str, tmp_path: Path) -> None:
    kind, config = SHAPES[shape]
    tokenizer = TOKENIZERS[kind]
    model = Transformer(config, tokenizer.vocab_size)
    export_gguf(model, tokenizer, tmp_path / "model.gguf", "my-Phi3")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.name"] == "my-Phi 3"  # llama.cpp could not load a file of that name
    architecture = shape.split(",")[0]
    settings: dict[str, Any] = {
        "context_length": 256,
        "block_count": 2,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 8,
    }
    settings |= {"attention.layer_norm_rms_epsilon": pytest.approx(config.norm_eps), "rope.freq_base": 10000}
    assert {name: fields[f"{architecture}.{name}"] for name in settings} == settings
    tokens = fields["tokenizer.ggml.tokens"]
    assert [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown")] == [1, 1, 0]
    assert tokens[1] == "<|endoftext|>" and tokens[tokenizer.encode(" ")[0]] == "▁" and len(tokens) == len({*tokens})
    assert not any(fields[f"tokenizer.ggml.{name}"] for name in ("add_bos_token", "add_space_prefix"))

    tensors, weights = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}, model.state_dict()
    assert ("output.weight" in tensors) == (not config.tie_embeddings)
    assert torch.equal(tensors["blk.1.ffn_down.weight"], weights["blocks.1.feed_forward.down.weight"])
    query, expected = tensors["blk.1.attn_q.weight"], weights["blocks.1.attention.query.weight"]
    for head, half, component in itertools.product(range(4), range(2), range(4)):
        row = 8 * head + (2 * component + half if architecture == "llama" else 4 * half + component)
        assert torch.equal(query[row], expected[8 * head + 4 * half + component])


REFUSED = [
    ({"attention": "latent", "n_kv_head": None}, "latent attention"),
    ({"kept_heads": [[0, 1], [3]]}, "lost heads by pruning"),
    ({"tricks": ["softcap"]}, "tricks"),
    ({"head_width": 16}, "model.head_width 16"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "model.rope_scaling {'rope_type': 'linear'"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_models_that_llama_cpp_lacks_are_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["char"]
    with pytest.raises(UserError, match=sentence):
        export_gguf(Transformer(replace(SMALL, **settings), tokenizer.vocab_size), tokenizer, tmp_path / "a.gguf", "a")
    assert not list(tmp_path.iterdir())


def test_tokenizers_that_llama_cpp_lacks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends a text at a token that is called <eos>, whatever its type."""
    proto = ModelProto.FromString(TOKENIZERS["word"].proto)
    proto.pieces.add(piece="<eos>", score=-1.0)
    marked = Tokenizer(proto.SerializeToString())
    monkeypatch.setattr("minitx.data.tokenizer.scores_on_grid", lambda proto: proto)  # as in old versions
    old = Tokenizer.train([TEXT], KINDS["unigram"])
    pytest.importorskip("tokenizers", reason="tokenizers comes with transformers, which is a test extra")
    theirs = JsonTokenizer(byte_level("qwen").to_str().encode(), 0, 512)
    refused = {"has the text <eos> as a token": marked, "older versions have none": old}
    for sentence, tokenizer in {**refused, "is the tokenizer.json of another model": theirs}.items():
        with pytest.raises(UserError, match=sentence):
            export_gguf(untrained(tokenizer), tokenizer, tmp_path / "a.gguf", "a")
    assert not list(tmp_path.iterdir())
