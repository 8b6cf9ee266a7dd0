"""A trained model writes on: prefill, decode token by token, stop.

`generate` goes from tokens to tokens, `complete` from text to text. The samples of one prompt are one batch: the
prompt is encoded once, then each step adds a token to every sample.

Past the context length: `window_start` says which of the tokens so far the model still sees. They are all seen until
they outgrow the context; then the oldest half of the context is dropped and the rest encoded anew from position 0,
which makes room for as many new tokens as were dropped. A prompt longer than the context is cut by the same rule.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minitx.cache import KeyValueCache
from minitx.config import GenerateConfig
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.decoder import Decoder
from minitx.generation.sampling import sample
from minitx.generation.stopping import StoppingText, StopReason
from minitx.model import Transformer, evaluating
from minitx.system.errors import UserError


class Tokenizer(Protocol):
    """What generation asks of a tokenizer. Its `decode` joins `token_bytes` and reads them as UTF-8."""

    @property
    def end_of_document(self) -> int:
        """The token that starts and ends a document; it has no bytes."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""

    def token_bytes(self, token: int, /) -> bytes:
        """What a token adds to the text, perhaps a part of a character."""


@dataclass(frozen=True)
class Completion:
    """What one sample came to."""

    prompt: str | None
    """The text it continues; None when it starts a document."""
    completion: str
    """The new text, without the stop text."""
    tokens: int
    """New tokens, those of a stop text and the end-of-document token included."""
    seconds: float
    """From the start of the batch to the end of this sample."""
    tokens_per_second: float
    stop_reason: StopReason
    """end: the document ended; stop: a stop text was reached; length: max_new_tokens were."""


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | None,
    options: GenerateConfig,
    on_text: Callable[[int, str], None] | None = None,
    decoder: CompiledDecoder | None = None,
) -> list[Completion]:
    """Continue `prompt`, or start a document where it is None, `options.num_samples` times.

    on_text: called with (sample index, new text) as the text grows: whole characters, and never a part of a stop
    text. The pieces of a sample joined are its completion.
    decoder: see `generate`.
    The model's mode and the global random state are left as they were. The options' own prompt and `compile` are not
    looked at: both come as arguments.
    Raises UserError when the prompt has no tokens, FloatingPointError when the model's logits are not finite.
    """
    prompt_tokens = [tokenizer.end_of_document] if prompt is None else tokenizer.encode(prompt)
    if not prompt_tokens:
        raise UserError(f"The prompt {prompt!r} has no tokens: give some text, or none to start a new document.")
    started = time.perf_counter()
    writers = [StoppingText(options.stops) for _ in range(options.num_samples)]
    completions: dict[int, Completion] = {}

    def show(index: int, text: str) -> None:
        writer = writers[index]
        if text and on_text is not None:
            on_text(index, text)
        if writer.stop_reason is not None:
            seconds = time.perf_counter() - started
            completions[index] = Completion(
                prompt, "".join(writer.pieces), writer.tokens, seconds, writer.tokens / seconds, writer.stop_reason
            )

    with evaluating(model):
        for step in generate(model, prompt_tokens, options, end_token=tokenizer.end_of_document, decoder=decoder):
            for index, token in enumerate(step):
                if token is None or index in completions:
                    continue
                if token == tokenizer.end_of_document:
                    show(index, writers[index].end("end"))
                else:
                    show(index, writers[index].write(tokenizer.token_bytes(token)))
            if len(completions) == len(writers):
                break
    for index, writer in enumerate(writers):
        if index not in completions:
            show(index, writer.end("length"))
    return [completions[index] for index in range(len(writers))]


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt_tokens: Sequence[int],
    options: GenerateConfig,
    *,
    end_token: int,
    decoder: CompiledDecoder | None = None,
) -> Iterator[list[int | None]]:
    """Yield, for each new position, the token of every sample; None for samples that have had their `end_token`.

    Goes on until all samples have ended, or for `options.max_new_tokens`. The model should be in eval mode.
    decoder: made of this model for `options.num_samples`, to decode with, as often as one likes; where there is none,
    and on a CPU, a `Decoder` does.
    Tokens are drawn on the CPU, with a generator of their own: the text then depends on the seed and not on whose
    generator a device brings, and the caller waits for the token anyway.
    """
    if not prompt_tokens:
        raise ValueError("there is no token to start from")
    batch, context_length = options.num_samples, model.config.context_length
    generator = torch.Generator().manual_seed(options.seed)
    seen = None
    if options.repetition_penalty != 1:
        seen = torch.zeros(batch, model.vocab_size, dtype=torch.bool)
        seen[:, list(prompt_tokens)] = True

    window = torch.tensor([prompt_tokens[window_start(len(prompt_tokens), context_length) :]])  # (1, seq)
    kept = context_length + 1 - half(context_length)  # tokens that stay when the context overflows
    recent = deque((column.expand(batch) for column in window[0, -kept:]), maxlen=kept)  # of (batch)
    start = model.new_cache(1, window.size(1))  # the prompt's, encoded once
    logits = next_logits(model, window, start).expand(batch, -1)  # (batch, vocab)
    needed = min(context_length, window.size(1) + options.max_new_tokens)
    cache = decoder.cache if decoder is not None else model.new_cache(batch, needed)
    cache.begin_with(start)
    decodes: Decoder | None = decoder

    ended = [False] * batch
    for position in range(options.max_new_tokens):
        if position > 0:
            if decodes is None and Decoder.takes(model, batch):
                decodes = Decoder(model, batch)
            logits = next_step_logits(model, decodes, recent, cache)
        tokens = sample(logits, seen, options, generator)  # (batch)
        recent.append(tokens)
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        new = tokens.tolist()
        yield [None if over else token for over, token in zip(ended, new, strict=True)]
        ended = [over or token == end_token for over, token in zip(ended, new, strict=True)]
        if all(ended):
            return


def half(context_length: int) -> int:
    """How many tokens are dropped when the context overflows."""
    return (context_length + 1) // 2


def window_start(length: int, context_length: int) -> int:
    """Index of the first of `length` tokens that the model sees: a whole number of halves of the context.

    It depends on nothing else, so that a text goes on the same way wherever its prompt ended.
    """
    overflow = max(0, length - context_length)
    return -(-overflow // half(context_length)) * half(context_length)


def next_logits(model: Transformer, tokens: Tensor, cache: KeyValueCache) -> Tensor:
    """Logits (batch, vocab), on the CPU, of what follows `tokens`, (batch, seq), which are added to the cache."""
    residual = model.residual(tokens.to(model.embedding.weight.device), cache=cache)  # (batch, seq, d_model)
    return model.unembed(residual[:, -1]).cpu()


def next_step_logits(
    model: Transformer, decoder: Decoder | None, recent: deque[Tensor], cache: KeyValueCache
) -> Tensor:
    """Logits (batch, vocab) of what follows the last of the `recent` tokens, each (batch); the rest are in the cache.

    A full cache is emptied and the recent tokens are encoded anew.
    """
    if cache.length < model.config.context_length:
        if decoder is not None:
            return decoder(recent[-1].to(model.embedding.weight.device), cache).cpu()
        return next_logits(model, recent[-1][:, None], cache)
    cache.clear()
    return next_logits(model, torch.stack(tuple(recent), dim=1), cache)
