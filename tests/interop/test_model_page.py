"""A page that runs its model: in Chromium its tokens, logits, patterns and predictions are Python's."""

from __future__ import annotations

import base64
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from minitx.__main__ import main
from minitx.config import ModelConfig, TokenizerConfig
from minitx.data.tokenizer import TRIAL, Tokenizer
from minitx.data.words import word_starts
from minitx.heads.packing import encode_weights, pack
from minitx.heads.record import patterns
from minitx.heads.view import text_snapshot
from minitx.heads.what_if import ranking, without
from minitx.interop import model_page as module
from minitx.interop.model_page import model_data, model_page, run_page, tokenizer_data
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.training.session import train
from tests.small import small_config, small_text
from tests.tensorboard.browser import Page, chromium, needs_browser

KINDS: list[Literal["unigram", "bpe", "char", "word"]] = ["unigram", "bpe", "char", "word"]
TEXT = "the cat sat on a mat and saw the dog"
HARD = [
    "",
    " ",
    "  two  spaces  ",
    " leading",
    "\n\n\ttab\r\n\v",
    "\u2581 \u2581\u2581mat",
    "👩🏽‍🚀 emoji 🏳️‍🌈 e\u0301 ﬁ",
    "日本語のtext, don't well-known ’s",
    "<0x41><s></s><unk><|endoftext|>",
    "\0 \x1b \ufeff \ufffd \U0010ffff \u200d\u2028\x85\xa0",
    TRIAL,
    "The Catsaton A MATTT and sawsawsaw " * 3,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def tokenizer(kind: Any) -> Tokenizer:
    texts = [small_text(), "Don't panic, said the well-known cat: it saw saws, and the end."]
    return Tokenizer.train(texts, TokenizerConfig(kind, {"unigram": 310, "bpe": 330}.get(kind, 400)))


def random_model(vocab_size: int, **settings: Any) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(
        ModelConfig(**{"n_layer": 2, "n_head": 4, "d_model": 32, "context_length": 80, **settings}), vocab_size
    )
    for parameter in model.parameters():
        if parameter.dim() < 2:  # norms, none of which may be left out
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def halved(model: Transformer) -> Transformer:
    """The model with weights in half precision, computed in float32 as the page does."""
    for parameter in model.parameters():
        parameter.data = parameter.half().float()
    return model


def write(file: Path, model: Transformer, tokens: Tokenizer) -> str:
    snapshot = text_snapshot(model, tokens, [(TEXT, tokens.encode(TEXT))], 7)
    file.write_text(model_page(model, tokens, snapshot, title="small"), "utf-8")
    return file.as_uri()


def texts_of(number: int) -> list[str]:
    """Random texts of few letters, in which many splits have equal scores."""
    draw = random.Random(number)
    return ["".join(draw.choice("teahcs  \n▁.é") for _ in range(draw.randrange(30))) for _ in range(60)]


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_labels_and_words_are_pythons(browser: Any, tmp_path: Path, kind: Any) -> None:
    ours, texts = tokenizer(kind), [*HARD, *texts_of(3)]
    with Page(browser, write(tmp_path / "page.html", random_model(ours.vocab_size), ours)) as page:
        page.tab.locator("body[data-step='7']").wait_for()
        found = page.tab.evaluate("texts => Promise.all(texts.map((text) => minitx.tokens(text)))", texts)
        for text, (ids, labels, words) in zip(texts, found, strict=True):
            expected = ours.encode(text)
            assert ids == expected, text
            assert labels == ours.token_labels(expected), text
            assert words == word_starts([ours.token_bytes(token) for token in expected]), text
        assert not page.errors


@needs_browser
@pytest.mark.parametrize(
    "settings",
    [
        {"qk_norm": False},
        {"qk_norm": True, "norm_eps": 1e-5, "rope_theta": 500.0},
        {"n_kv_head": 2},
        {"n_kv_head": 1, "tie_embeddings": True, "d_ff": 50},
        {"n_head": 3, "head_width": 6},
    ],
    ids=["llama", "qwen3", "grouped", "tied", "head_width"],
)
def test_logits_are_pythons(browser: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    """To 1e-4 with the same weights in half precision. Those in float32 differ by the rounding, 0.005 on average."""
    ours = tokenizer("char")
    model = random_model(ours.vocab_size, **settings)
    tokens = torch.randint(0, ours.vocab_size, (1, 80), generator=torch.Generator().manual_seed(2))
    with Page(browser, write(tmp_path / "page.html", model, ours)) as page:
        found = torch.tensor(page.tab.evaluate("tokens => minitx.logits(tokens)", tokens[0].tolist())).view(80, -1)
        with torch.inference_mode():
            whole = model(tokens)[0]
            half = halved(model)(tokens)[0]
        torch.testing.assert_close(found, half, atol=1e-4, rtol=1e-4)
        assert (found - whole).square().mean().sqrt() < 5e-3 < whole.std() / 10
        assert not page.errors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = small_config(tmp_path_factory.mktemp("model_page"), sample_every=0)
    assert train(replace(config, model=replace(config.model, context_length=80))) == 0
    return Run(Path(config.out))


def mean(losses: list[float | None]) -> float:
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known)


@needs_browser
@pytest.mark.parametrize("text", ["rain fell on her hat", "the cat sat. " * 6], ids=["short", "of 78 tokens"])
def test_a_typed_text_shows_pythons_patterns_and_heads_are_switched_off(
    browser: Any, run: Run, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert main(["export", str(run.path), str(file), "--format", "page", "--checkpoint", "12"]) == 0
    assert "runs the model" in capsys.readouterr().out
    text = text.strip()
    model, ours = halved(run.load_model("12", torch.device("cpu"))[0]), run.tokenizer()
    tokens = ours.encode(text)
    with Page(browser, f"{file.as_uri()}#units=tokens") as page:
        page.tab.locator("body[data-step='12']").wait_for()
        page.tab.locator("form.own textarea").fill(text)
        page.tab.locator("form.own button").click()
        page.tab.locator(".note", has_text="Your text through the weights of step 12.").wait_for()
        levels = page.tab.evaluate("text => minitx.patterns(text)", text)
        expected = pack(encode_weights(patterns(model, torch.tensor([tokens]))[:, 0])).reshape(4, -1)
        assert np.abs(np.array(levels) - expected).max() <= 1
        page.tab.locator(".segments button", has_text="Predictions").click()
        page.tab.locator(".position").first.wait_for()
        page.tab.locator(".segments button", has_text="What if").click()
        page.tab.locator("[data-switch='head 1']").click()
        page.tab.locator(".headline", has_text="Without head 0·1").wait_for()
        for heads, how in (([1], "zero"), ([1], "mean")):
            asked = {"heads": heads, "how": how}
            answer = without(model, ours, tokens, asked)
            found = page.tab.evaluate("([text, fields]) => minitx.ask(text, 'without', fields)", [text, asked])
            for side in ("before", "after"):
                assert found[side]["loss"] == pytest.approx(answer[side]["loss"], abs=2e-3)
                assert np.allclose(found[side]["probabilities"], answer[side]["probabilities"], atol=1e-3)
                assert found[side]["loss"][-1] is None and found[side]["real"][-1] is None
        told = re.search(r"goes from ([\d.]+) to ([\d.]+) nats", page.tab.locator(".headline").text_content())
        answer = without(model, ours, tokens, {"heads": [1], "how": "zero"})
        assert told is not None
        assert [float(one) for one in told.groups()] == pytest.approx(
            [mean(answer[side]["loss"]) for side in ("before", "after")], abs=0.006
        )
        for how in ("zero", "mean"):
            fields = {"positions": [1, len(tokens) - 1], "how": how}
            found = page.tab.evaluate("([text, fields]) => minitx.ask(text, 'ranking', fields)", [text, fields])
            best = ranking(model, ours, tokens, fields)
            assert [found["loss"], *found["without"]] == pytest.approx([best["loss"], *best["without"]], rel=1e-3)
        fetched = [request for request in page.requests if not request.startswith("blob:")]  # the worker is one
        assert not page.errors and fetched == [file.as_uri()]


@needs_browser
@pytest.mark.parametrize("in_worker", [True, False])
def test_what_cannot_be_run_is_said_in_a_sentence(browser: Any, tmp_path: Path, in_worker: bool) -> None:
    ours = tokenizer("char")
    address = write(file := tmp_path / "page.html", random_model(ours.vocab_size), ours)
    if not in_worker:
        file.write_text(file.read_text("utf-8").replace("worker-src blob:", "worker-src &#x27;none&#x27;", 1), "utf-8")
    with Page(browser, address) as page:
        page.tab.locator("body[data-step='7']").wait_for()
        page.tab.evaluate("document.querySelector('form.own textarea').value = 'a\\ud800'")
        page.tab.locator("form.own button").click()
        page.tab.locator(".fault", has_text="lone surrogate").wait_for()
        page.tab.locator("form.own textarea").fill(TEXT * 3)
        page.tab.locator("form.own button").click()
        page.tab.locator(".note", has_text=f"its last {3 * len(TEXT) - 80} tokens are left out").wait_for()
        page.tab.locator(".segments button", has_text="What it writes").click()
        page.tab.locator(".hint", has_text="open the run in TensorBoard").wait_for()
        assert not page.errors and len(page.tab.workers) == in_worker


def test_a_page_is_json_where_a_letter_never_came() -> None:
    """SentencePiece gives it the score -inf."""
    ours = tokenizer("char")
    model = ModelProto.FromString(ours.proto)
    model.pieces[-1].score = -math.inf
    data = tokenizer_data(Tokenizer(model.SerializeToString()))
    assert json.loads(json.dumps(data, allow_nan=False))["scores"][-1] < -1e30


def test_a_run_whose_text_is_gone_has_a_page_without_scores_on_it(run: Run, tmp_path: Path) -> None:
    text = run.path.parent.parent / "text.txt"
    pages = []
    for name in ("text.txt", "elsewhere.txt"):
        text.rename(text.with_name(name))
        pages.append(run_page(run, run.load_model("12", torch.device("cpu"))[0], 12))
    text.with_name("elsewhere.txt").rename(text)
    headers = [json.loads(re.search(r'id="data">(.+?)</script>', page)[1])["snapshots"][0] for page in pages]  # type: ignore[index]
    assert ["validation text" in base64.b64decode(header).decode("latin-1") for header in headers] == [True, False]


def test_what_a_page_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenizer("char")
    for settings, name in (
        ({"attention": "latent"}, "latent attention"),
        ({"tricks": ["smear"]}, "tricks"),
        ({"kept_heads": [[0], [1, 2]]}, "pruned heads"),
    ):
        with pytest.raises(UserError, match=f"has {name}"):
            model_data(random_model(ours.vocab_size, **settings), ours)
    model = random_model(ours.vocab_size)
    monkeypatch.setattr(module, "MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(UserError, match="holds at most 1,000"):
        model_data(model, ours)
    monkeypatch.undo()
    model.final_norm.weight.data[3] = 1e5
    with pytest.raises(UserError, match=r"final_norm.weight .* half precision"):
        model_data(model, ours)
    json.dumps(model_data(random_model(ours.vocab_size), ours))
