"""Peers compute the same as minitx: equal logits, equal text. A float64 reader checks llama2.c's file format."""

from __future__ import annotations

import dataclasses
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minitx.bench.peers import llama2c, nanogpt, transformers
from minitx.bench.peers.nanogpt import COMMANDS, command_training, learning_rate
from minitx.bench.shapes import NAMES, Shape, named
from minitx.bench.suites.generate import Work, model_of, write_tokens
from minitx.interop import llama2c as llama2c_format
from minitx.model import Transformer
from minitx.system.errors import UserError
from minitx.training.loop import evaluate
from minitx.training.optim import set_learning_rate
from tests.bench.small import TINY, cpu, nano_gpt_checkout
from tests.small import small_text

NANO_GPT = os.environ.get("MINITX_NANOGPT")
LLAMA2C = os.environ.get("MINITX_LLAMA2C")
Array = NDArray[np.float64]


def llama_shape(**model: Any) -> Shape:
    shape = TINY.as_llama()
    return dataclasses.replace(shape, model=dataclasses.replace(shape.model, **model))


def random_model(shape: Shape) -> Transformer:
    """Every parameter random, the norms too, so that none can be forgotten unnoticed."""
    torch.manual_seed(1)
    model = Transformer(shape.model, shape.vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


# Shapes


def test_the_table_of_shapes() -> None:
    shapes = {name: named(name) for name in NAMES}
    assert (shapes["default"].model.d_model, shapes["default"].vocab_size) == (128, 2048)
    fifteen = shapes["15m"]
    with torch.device("meta"):
        model = Transformer(fifteen.as_llama().model, fifteen.vocab_size)
    assert sum(p.numel() for p in model.parameters()) == 15_191_712  # as llama2.c's stories15M has
    assert shapes["gpu_small"].model.tie_embeddings
    assert shapes["shakespeare_char"].vocab_size == 323


@pytest.mark.parametrize("name", ["defualt", "nothing/there.yaml"])
def test_a_shape_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match="There is no"):
        named(name)


# transformers


@pytest.mark.parametrize("tied", [True, False])
def test_llama_has_the_same_logits(tied: bool) -> None:
    pytest.importorskip("transformers", reason="transformers is a test extra")
    model = random_model(llama_shape(tie_embeddings=tied, n_kv_head=1))
    theirs = transformers.llama(model).eval()
    assert transformers.require_equal_logits(model, lambda tokens: theirs(tokens).logits, "Llama") < 1e-5


def test_another_model_is_refused() -> None:
    model = random_model(llama_shape())
    other = random_model(llama_shape())
    with torch.no_grad():
        other.final_norm.weight.mul_(1.01)
    with pytest.raises(UserError, match="gives other logits"):
        transformers.require_equal_logits(model, other, "It")


def test_without_transformers_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in str(transformers.why_not())


# nanoGPT


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkout of nanoGPT"):
        nanogpt.load_module(str(tmp_path))
    (tmp_path / "model.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(UserError, match="cannot be imported"):
        nanogpt.load_module(str(tmp_path))
    (tmp_path / "model.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no class GPT"):
        nanogpt.load_module(str(tmp_path))


def test_the_stand_in_is_built_quietly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = np.zeros(100, np.uint16)
    training = nanogpt.build_training(str(nano_gpt_checkout(tmp_path)), TINY, tokens, cpu())
    assert training.optimizers[0].param_groups[0]["lr"] == TINY.train.learning_rate
    assert capsys.readouterr().out == ""


def test_the_schedule_of_nano_gpt() -> None:
    train = COMMANDS["cpu"].train
    assert learning_rate(0, train) == pytest.approx(1e-3 / 101)
    assert learning_rate(99, train) == pytest.approx(1e-3 * 100 / 101)
    assert learning_rate(100, train) == pytest.approx(1e-3)
    assert learning_rate(1050, train) == pytest.approx((1e-3 + 1e-4) / 2)
    assert learning_rate(2000, train) == pytest.approx(1e-4)


@pytest.mark.skipif(NANO_GPT is None, reason="MINITX_NANOGPT names no checkout of nanoGPT")
def test_the_real_nano_gpt_learns(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(small_text(), "utf-8")
    published = COMMANDS["cpu"]
    command = dataclasses.replace(
        published,
        model=dataclasses.replace(published.model, n_layer=1),
        train=dataclasses.replace(published.train, steps=30, warmup_steps=2),
    )
    training, val = command_training(command, str(NANO_GPT), str(text), cpu(), seed=1)
    before = evaluate(training.model, val, 64, cpu())
    for number in range(30):
        set_learning_rate(training.optimizers, learning_rate(number, command.train))
        training.step()
    assert evaluate(training.model, val, 64, cpu()) < before - 0.5


# llama2.c


class Read:
    """llama2.c's file as its run.c describes it, read by numpy into float64."""

    def __init__(self, file: Path) -> None:
        content = file.read_bytes()
        self.dim, self.hidden, self.layers, self.heads, self.kv_heads, vocab, self.seq = struct.unpack_from(
            "<7i", content
        )
        self.shared, self.vocab = vocab > 0, abs(vocab)
        self.values = np.frombuffer(content, "<f4", offset=28).astype(np.float64)
        self.at = 0
        width, kv = self.dim, self.dim // self.heads * self.kv_heads
        self.embedding = self.take(self.vocab, width)
        self.norm1 = self.take(self.layers, width)
        self.wq, self.wk = self.take(self.layers, width, width), self.take(self.layers, kv, width)
        self.wv, self.wo = self.take(self.layers, kv, width), self.take(self.layers, width, width)
        self.norm2 = self.take(self.layers, width)
        self.w1, self.w2 = self.take(self.layers, self.hidden, width), self.take(self.layers, width, self.hidden)
        self.w3 = self.take(self.layers, self.hidden, width)
        self.final = self.take(width)
        self.take(self.seq, width // self.heads)
        self.output = self.embedding if self.shared else self.take(self.vocab, width)

    def take(self, *shape: int) -> Array:
        count = int(np.prod(shape))
        self.at += count
        return self.values[self.at - count : self.at].reshape(shape)

    def logits(self, tokens: list[int]) -> Array:
        """(seq, vocab), by loops over positions, heads and neighbouring pairs."""
        x, size = self.embedding[tokens], self.dim // self.heads
        for layer in range(self.layers):
            normed = rms(x, self.norm1[layer])
            q, k, v = (normed @ w[layer].T for w in (self.wq, self.wk, self.wv))
            mixed = np.zeros_like(q)
            for head in range(self.heads):
                kv_head = head // (self.heads // self.kv_heads)
                one, other = slice(head * size, (head + 1) * size), slice(kv_head * size, (kv_head + 1) * size)
                query, key = turned(q[:, one]), turned(k[:, other])
                for i in range(len(tokens)):
                    scores = query[i] @ key[: i + 1].T / np.sqrt(size)
                    weights = np.exp(scores - scores.max())
                    mixed[i, one] = weights / weights.sum() @ v[: i + 1, other]
            x = x + mixed @ self.wo[layer].T
            normed = rms(x, self.norm2[layer])
            gate = normed @ self.w1[layer].T
            x = x + (gate / (1 + np.exp(-gate)) * (normed @ self.w3[layer].T)) @ self.w2[layer].T
        return np.asarray(rms(x, self.final) @ self.output.T)


def rms(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight)


def turned(x: Array) -> Array:
    """Neighbouring components turned by position · 10000^(-i / size)."""
    out, size = np.empty_like(x), x.shape[1]
    for position in range(len(x)):
        for i in range(0, size, 2):
            angle = position * 10000.0 ** (-i / size)
            a, b = x[position, i], x[position, i + 1]
            out[position, i] = a * np.cos(angle) - b * np.sin(angle)
            out[position, i + 1] = a * np.sin(angle) + b * np.cos(angle)
    return out


@pytest.mark.parametrize(
    "model", [{"tie_embeddings": True}, {"tie_embeddings": False, "n_head": 4, "n_kv_head": 2, "d_ff": 24}]
)
def test_llama2c_reads_the_same_model(model: dict[str, Any], tmp_path: Path) -> None:
    shape = llama_shape(**model)
    ours, file = random_model(shape), tmp_path / "model.bin"
    llama2c_format.export_weights(ours, file)
    read = Read(file)
    assert read.at == len(read.values)
    tokens = torch.randint(0, shape.vocab_size, (16,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = ours(tokens[None])[0]
    np.testing.assert_allclose(expected.numpy(), read.logits(tokens.tolist()), rtol=1e-4, atol=1e-3)


def test_the_vocabulary_names_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.bin"
    llama2c_format.export_vocabulary(12, file)
    content = file.read_bytes()
    (longest,) = struct.unpack_from("<i", content)
    at, pieces = 4, []
    while at < len(content):
        _, length = struct.unpack_from("<fi", content, at)
        pieces.append(content[at + 8 : at + 8 + length].decode())
        at += 8 + length
    assert pieces == [f"{token}\n" for token in range(12)]
    assert longest == 3


@pytest.mark.parametrize("model", [{"qk_norm": True}, {"norm_eps": 1e-6}, {"rope_theta": 500.0}])
def test_what_llama2c_has_not_is_refused(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama2\.c"):
        llama2c_format.export_weights(random_model(llama_shape(**model)), tmp_path / "model.bin")


def program(folder: Path, body: str) -> Path:
    file = folder / "run"
    file.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    file.chmod(0o755)
    return file


def test_what_run_prints_is_read_back(tmp_path: Path) -> None:
    body = "import os; assert os.getcwd() == os.path.dirname(sys.argv[1]), 'it may load code from another folder'; "
    file = program(tmp_path, body + 'print("7\\n3\\n"); print("achieved tok/s: 250.5", file=sys.stderr)')
    run = llama2c.Llama2c(llama2c.find_run(str(tmp_path)), random_model(llama_shape()), tmp_path, 1)
    assert run.write(2) == ([7, 3], 2 / 250.5)
    assert not llama2c.has_openmp(file)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('sys.exit("Couldn\'t open file")', "Couldn't open file"),
        ("pass", "without a word"),
        ('print("achieved tok/s: inf", file=sys.stderr)', "less than the millisecond"),
    ],
)
def test_a_run_that_fails(body: str, sentence: str, tmp_path: Path) -> None:
    file = program(tmp_path, body)
    with pytest.raises(UserError, match=sentence):
        llama2c.Llama2c(file, random_model(llama_shape()), tmp_path, 1).write(2)


def test_no_program_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no program"):
        llama2c.find_run(str(tmp_path))


def test_a_model_that_does_not_write_the_start_token() -> None:
    """There llama2.c would stop, and the two would be timed on different work."""
    shape = llama_shape()
    model = model_of(shape, 0)
    assert llama2c_format.START not in write_tokens(model, Work(16))[0]


@pytest.mark.skipif(LLAMA2C is None, reason="MINITX_LLAMA2C names no compiled run of llama2.c")
@pytest.mark.parametrize("tied", [True, False])
def test_the_real_llama2c_writes_the_same_text(tied: bool, tmp_path: Path) -> None:
    shape = dataclasses.replace(
        llama_shape(tie_embeddings=tied, context_length=64, n_head=4, n_kv_head=2), vocab_size=2000
    )
    model = model_of(shape, 0)
    llama2c_format.export_weights(model, tmp_path / "model.bin")
    llama2c_format.export_vocabulary(shape.vocab_size, tmp_path / "tokenizer.bin")
    ours: list[int] = write_tokens(model, Work(64))[0]
    done = _run_slowly(tmp_path)
    assert done == ours


def _run_slowly(folder: Path) -> list[int]:
    """The tokens of the real program, whose rate on so small a model its clock may not see."""
    import subprocess

    command = [str(llama2c.find_run(str(LLAMA2C))), str(folder / "model.bin"), "-t", "0", "-n", "64"]
    command += ["-z", str(folder / "tokenizer.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]
