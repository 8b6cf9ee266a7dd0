"""Generation against an uncached loop, and its text against a search one character at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minitx.config import GenerateConfig, ModelConfig
from minitx.data.tokenizer import Tokenizer
from minitx.generation import generate as generation
from minitx.generation.generate import complete, generate, window_start
from minitx.generation.sampling import sample
from minitx.generation.stopping import StoppingText
from minitx.model import Transformer
from minitx.system.errors import UserError
from tests.small import looking

END = 256


class ByteTokenizer(Tokenizer):
    """A token for each byte, and one that ends a document."""

    vocab_size = 257
    end_of_document = END

    def __init__(self) -> None:
        """It needs no SentencePiece model."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, id: int) -> bytes:
        return b"" if id == END else bytes([id])


def tiny_model(context_length: int = 8, n_kv_head: int | None = None, dropout: float = 0.0) -> Transformer:
    """Float64, so that nothing but a wrong context can tell the cached logits from the uncached."""
    torch.manual_seed(0)
    config = ModelConfig(
        n_layer=2, n_head=2, n_kv_head=n_kv_head, d_model=16, d_ff=32, context_length=context_length, dropout=dropout
    )
    return Transformer(config, vocab_size=257).double().eval()


def uncached(model: Transformer, tokens: Sequence[int]) -> Tensor:
    """Logits (vocab) after `tokens`: walk along them, drop the oldest half of a full context, run what is left."""
    context_length = model.config.context_length
    window: list[int] = []
    for token in tokens:
        if len(window) == context_length:
            window = window[(context_length + 1) // 2 :]
        window.append(token)
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([window]), heads=looking(True))
    return logits[0, -1]


@pytest.fixture
def step_logits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits of every step that `generate` hands to `sample`."""
    steps = []

    def spy(logits: Tensor, *arguments: object) -> Tensor:
        steps.append(logits.clone())
        return sample(logits, *arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(generation, "sample", spy)
    return steps


@pytest.mark.parametrize("context_length", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("prompt_length", [1, 2, 7, 8, 9, 12, 13, 30])
def test_each_step_has_the_logits_of_the_uncached_model(
    context_length: int, prompt_length: int, step_logits: list[Tensor]
) -> None:
    model = tiny_model(context_length, n_kv_head=1 if prompt_length % 2 else 2)
    prompt = [(7 * i) % 256 for i in range(prompt_length)]
    options = GenerateConfig(max_new_tokens=25, num_samples=3, temperature=1.0)
    steps = list(generate(model, prompt, options, end_token=-1))
    assert len(steps) == 25
    rows = [[*prompt, *(step[index] or 0 for step in steps)] for index in range(3)]
    assert rows[0] != rows[1]
    for position, logits in enumerate(step_logits):
        for index, row in enumerate(rows):
            expected = uncached(model, row[: prompt_length + position])
            torch.testing.assert_close(logits[index], expected, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 200), st.integers(1, 40))
def test_the_window_holds_half_the_context_and_the_newest_token(length: int, context_length: int) -> None:
    kept = length - window_start(length, context_length)
    assert min(length, context_length // 2 + 1) <= kept <= context_length


@pytest.mark.parametrize("kept_heads", [None, [[], [1]]])
@pytest.mark.parametrize("attention", ["multi_head", "latent"])
def test_every_kind_of_attention_generates_from_its_cache(
    attention: str, kept_heads: list[list[int]] | None, step_logits: list[Tensor]
) -> None:
    """Past the context too, where the cache is cleared, and with several samples, where it is repeated; also where
    the first layer has lost its heads."""
    torch.manual_seed(0)
    config = ModelConfig(2, 2, attention=attention, d_model=16, context_length=8, kept_heads=kept_heads)  # type: ignore[arg-type]  # a Literal by its value
    model, prompt = Transformer(config, vocab_size=257).double().eval(), [5, 6, 7]
    steps = list(generate(model, prompt, GenerateConfig(max_new_tokens=20, num_samples=2), end_token=-1))
    for position, logits in enumerate(step_logits):
        for row in range(2):
            text = prompt + [int(step[row] or 0) for step in steps[:position]]
            torch.testing.assert_close(logits[row], uncached(model, text))


def test_a_text_goes_on_the_same_wherever_its_prompt_ended() -> None:
    model, options = tiny_model(), GenerateConfig(max_new_tokens=30, temperature=0)
    whole = [step[0] or 0 for step in generate(model, [1, 2, 3], options, end_token=-1)]
    for cut in (1, 6, 13, 20):
        rest = generate(model, [1, 2, 3, *whole[:cut]], options, end_token=-1)
        assert [step[0] for step in rest][: 30 - cut] == whole[cut:]


def test_the_prompt_is_encoded_once_and_then_one_token_a_step() -> None:
    model = tiny_model()
    shapes = []
    model.embedding.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    list(generate(model, [1, 2, 3, 4, 5], GenerateConfig(max_new_tokens=9, num_samples=3), end_token=-1))
    assert shapes == [(1, 5), (3,), (3,), (3,), (3, 5), (3,), (3,), (3,), (3, 5)]


def scripted(monkeypatch: pytest.MonkeyPatch, columns: Sequence[Sequence[int]]) -> None:
    """Make the sampler draw these tokens, one list for each step."""
    steps = iter(columns)
    monkeypatch.setattr(generation, "sample", lambda *_: torch.tensor(next(steps)))


def test_an_ended_sample_gives_none_until_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [[1, 2, 3], [END, 2, 3], [9, END, 3], [END, 9, END], [8, 8, 8]])
    steps = generate(tiny_model(), [5], GenerateConfig(max_new_tokens=10, num_samples=3), end_token=END)
    assert list(steps) == [[1, 2, 3], [END, 2, 3], [None, END, 3], [None, None, END]]


def test_the_caller_is_not_left_in_inference_mode() -> None:
    """A `with` around the yield would switch it on for whoever iterates."""
    for _ in generate(tiny_model(), [5], GenerateConfig(max_new_tokens=2), end_token=-1):
        assert not torch.is_inference_mode_enabled()


def test_nothing_to_start_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token"):
        list(generate(tiny_model(), [], GenerateConfig(), end_token=END))
    with pytest.raises(UserError, match="has no tokens"):
        complete(tiny_model(), ByteTokenizer(), "", GenerateConfig())


def test_the_repetition_penalty_counts_prompt_and_new_tokens() -> None:
    """So large a penalty takes every used token to 0 or far below, and a likelier one is always left."""
    options = GenerateConfig(max_new_tokens=60, num_samples=2, temperature=0, repetition_penalty=1e6)
    steps = list(generate(tiny_model(), range(150), options, end_token=-1))
    for row in zip(*steps, strict=True):
        assert len({*range(150), *row}) == 210


def test_a_seed_gives_a_text_and_global_state_stays() -> None:
    model, tokenizer = tiny_model(), ByteTokenizer()
    before = torch.get_rng_state(), random.getstate()
    texts = [
        [
            c.completion
            for c in complete(model, tokenizer, "ab", GenerateConfig(max_new_tokens=20, num_samples=2, seed=s))
        ]
        for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_without_a_prompt_a_document_starts() -> None:
    model = tiny_model()
    starts = []
    model.embedding.register_forward_pre_hook(lambda _, arguments: starts.append(arguments[0].tolist()))
    completion = complete(model, ByteTokenizer(), None, GenerateConfig(prompt="not this", max_new_tokens=1))[0]
    assert starts == [[[END]]]
    assert completion.prompt is None


def completed(
    monkeypatch: pytest.MonkeyPatch, texts: Sequence[bytes | list[int]], **options: object
) -> tuple[list[generation.Completion], list[list[str]]]:
    """The result of `complete` for samples with these tokens, and the pieces that it streams of every sample."""
    length = max(map(len, texts))

    def script(*_: object, **__: object) -> Iterator[list[int | None]]:
        for position in range(length):
            yield [text[position] if position < len(text) else None for text in texts]

    monkeypatch.setattr(generation, "generate", script)
    pieces: list[list[str]] = [[] for _ in texts]
    config = GenerateConfig(num_samples=len(texts), **options)  # type: ignore[arg-type]  # any of its settings
    completions = complete(tiny_model(), ByteTokenizer(), "p", config, lambda index, text: pieces[index].append(text))
    assert ["".join(streamed) for streamed in pieces] == [completion.completion for completion in completions]
    return completions, pieces


def test_the_three_ways_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [[*b"one\n\ntwo"], [*b"one", END], [*b"one\ntwo"]]
    completions, _ = completed(monkeypatch, texts, stop=["\n\n"])
    assert [(c.completion, c.stop_reason, c.tokens) for c in completions] == [
        ("one", "stop", 5),
        ("one", "end", 4),
        ("one\ntwo", "length", 7),
    ]
    assert all(c.prompt == "p" and c.seconds > 0 for c in completions)
    assert all(c.tokens_per_second == pytest.approx(c.tokens / c.seconds) for c in completions)
    assert completions[0].seconds < completions[2].seconds


def test_generation_ends_with_the_last_stop_text() -> None:
    """Not at max_new_tokens: after its stop text no more of a text is wanted."""
    model = tiny_model()
    calls: list[None] = []
    model.embedding.register_forward_pre_hook(lambda *_: calls.append(None))
    text = complete(model, ByteTokenizer(), "ab", GenerateConfig(max_new_tokens=300, temperature=0))[0].completion
    calls.clear()
    stopped = complete(
        model, ByteTokenizer(), "ab", GenerateConfig(max_new_tokens=300, temperature=0, stop=[text[3:5]])
    )[0]
    assert stopped.stop_reason == "stop"
    assert stopped.completion == text[: text.index(text[3:5])]
    assert len(calls) == stopped.tokens < 20


def test_streamed_text_has_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "naïve 日本 🙂!"
    _, pieces = completed(monkeypatch, [text.encode()])
    assert pieces[0] == list(text)


def test_a_character_is_shown_once_it_is_whole_and_a_part_of_one_at_the_end() -> None:
    writer = StoppingText([])
    assert [writer.write(bytes([byte])) for byte in "😀".encode()] == ["", "", "", "😀"]
    assert [writer.write("😀".encode()[:1]), writer.end("end")] == ["", "\ufffd"]


def test_broken_bytes_read_as_decode_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = b"a\xff\xe6\x97b\xf0\x9f\x99"  # ends in the middle of a character
    completions, _ = completed(monkeypatch, [broken])
    assert completions[0].completion == broken.decode("utf-8", "replace")


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pieces = completed(monkeypatch, [b"a\nUseful\nUser: b"], stop=["\nUser:"])
    assert pieces[0] == ["a", "\nUsef", "u", "l"]
    _, pieces = completed(monkeypatch, [b"a\nUse"], stop=["\nUser:"])
    assert pieces[0] == ["a", "\nUse"]  # nothing more comes, so it was none


def stopped_text(text: str, stops: list[str]) -> str | None:
    """Read one character after another until a stop text is complete; then leave out the longest that is."""
    for end in range(len(text) + 1):
        complete_ones = [stop for stop in stops if text[:end].endswith(stop)]
        if complete_ones:
            return text[: end - max(map(len, complete_ones))]
    return None


@settings(max_examples=500, deadline=None)
@given(
    st.text("abé", max_size=14),
    st.lists(st.text("abé", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 20)),
)
def test_a_text_stops_at_the_same_place_however_it_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    writer, shown = StoppingText(stops), ""
    for start, end in pairwise(edges):
        shown += writer.write(data[start:end])
        so_far = data[:end].decode("utf-8", "ignore")
        expected = stopped_text(so_far, stops)
        if expected is not None:
            assert (shown, writer.stop_reason) == (expected, "stop")
            return
        beginnings = [stop[:n] for stop in stops for n in range(1, len(stop)) if so_far.endswith(stop[:n])]
        assert shown == so_far[: len(so_far) - max(map(len, beginnings), default=0)]
    shown += writer.end("length")
    assert (shown, writer.stop_reason) == (text, "length")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\xff", b"\xf0", b"\x9f", b"\x99", b"\x82", b"\xe6\x97", b"\xc3", b"\xa9"])))
def test_bytes_token_by_token_read_as_bytes_at_once(tokens: list[bytes]) -> None:
    writer = StoppingText([])
    shown = "".join(writer.write(token) for token in tokens) + writer.end("end")
    assert shown == b"".join(tokens).decode("utf-8", "replace")
