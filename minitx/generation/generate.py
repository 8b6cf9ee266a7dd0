"""A trained model continues a text: prefill, decode token by token, stop.

`generate` goes from tokens to tokens, `complete` from text to text. The samples of one prompt are one batch: the
prompt is encoded once, then each step adds a token to every sample.

A text that outgrows the context loses the oldest half of it. The rest is encoded anew from position 0, which makes
room for as many new tokens as were dropped. `window_start` cuts a prompt longer than the context by the same rule.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minitx.cache import KeyValueCache
from minitx.config import GenerateConfig
from minitx.data.tokenizer import Tokenizer
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.decoder import Decoder
from minitx.generation.sampling import sample
from minitx.generation.stopping import StoppingText, StopReason
from minitx.model import Transformer
from minitx.system.errors import UserError


@dataclass(frozen=True)
class Completion:
    """The text of one sample, and how it ended."""

    prompt: str | None
    """The text that it continues; None for a new document."""
    completion: str
    """The new text, without the stop text."""
    tokens: int
    """New tokens, those of a stop text and the end-of-document token included."""
    seconds: float
    """From the start of the batch to the end of this sample."""
    tokens_per_second: float
    stop_reason: StopReason
    """end: the document ended; stop: a stop text was reached; length: max_new_tokens was."""


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | None,
    options: GenerateConfig,
    on_text: Callable[[int, str], None] | None = None,
    decoder: Decoder | None = None,
) -> list[Completion]:
    """Continue `prompt`, or start a new document if it is None, `options.num_samples` times.

    options: says how to sample and when to stop. The model and the prompt are arguments, so `prompt`, `prompt_file`,
        `checkpoint`, `device` and `dtype` are not read.
    on_text: called with (sample index, new text) as the text grows: whole characters, and never a part of a stop
        text. The pieces of a sample joined are its completion.
    decoder: see `generate`.

    The model's mode and the global random state stay as they were. Raises UserError when the prompt has no tokens,
    FloatingPointError when the model's logits are not finite.
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

    for step in generate(model, prompt_tokens, options, end_token=tokenizer.end_of_document, decoder=decoder):
        for index, token in enumerate(step):
            if token is None or index in completions:
                continue
            ends = token == tokenizer.end_of_document
            writer = writers[index]
            show(index, writer.end("end") if ends else writer.write(tokenizer.token_bytes(token)))
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
    decoder: Decoder | None = None,
) -> Iterator[list[int | None]]:
    """Yield, for each new position, the token of every sample; None for samples that already had their `end_token`.

    Ends when all samples have ended, or after `options.max_new_tokens`. The model should be in eval mode.
    decoder: made from this model for `options.num_samples`; may be used again. By default `choose_decoder` makes one.

    Tokens are sampled on the CPU, where the caller waits for them anyway: a seed gives the same text on every device
    that computes the same logits.
    """
    if not prompt_tokens:
        raise ValueError("there is no token to start from")
    batch, context_length = options.num_samples, model.config.context_length
    generator = torch.Generator().manual_seed(options.seed)
    used = None
    if options.repetition_penalty != 1:
        used = torch.zeros(batch, model.vocab_size, dtype=torch.bool)
        used[:, list(prompt_tokens)] = True

    window = torch.tensor([prompt_tokens[window_start(len(prompt_tokens), context_length) :]])  # (1, seq)
    recent = deque((column.expand(batch) for column in window[0]), maxlen=context_length + 1)  # of (batch)
    start = model.new_cache(1, window.size(1))  # of the prompt, encoded once
    logits = next_logits(model, window, start).expand(batch, -1)  # (batch, vocab)

    ended = [False] * batch
    for position in range(options.max_new_tokens):
        if position == 1:  # the first token needs only the prompt's logits
            decoder = decoder or choose_decoder(model, batch, options.compile)
            capacity = min(context_length, window.size(1) + options.max_new_tokens)
            cache = decoder.new_cache(capacity) if decoder else model.new_cache(batch, capacity)
            cache.begin_with(start)
        if position > 0:
            logits = next_step_logits(model, decoder, recent, cache)
        tokens = sample(logits, used, options, generator)  # (batch)
        recent.append(tokens)
        if used is not None:
            used.scatter_(1, tokens[:, None], True)
        new = tokens.tolist()
        yield [None if over else token for over, token in zip(ended, new, strict=True)]
        ended = [over or token == end_token for over, token in zip(ended, new, strict=True)]
        if all(ended):
            return


@torch.inference_mode(False)  # the compiler would see another program in inference tensors
def choose_decoder(model: Transformer, batch: int, compile: bool = False) -> Decoder | None:
    """The quickest decoder of `batch` sequences, compiled only if asked; None if the model itself has to decode."""
    kinds = (CompiledDecoder, Decoder) if compile else (Decoder,)
    return next((kind(model, batch) for kind in kinds if kind.why_not(model, batch) is None), None)


def warm_decoder(model: Transformer, options: GenerateConfig) -> Decoder | None:
    """The decoder of `choose_decoder`, with its program already compiled, so that no text waits for that."""
    decoder = choose_decoder(model, options.num_samples, options.compile)
    if isinstance(decoder, CompiledDecoder):
        trial = replace(options, max_new_tokens=4)  # at the last three a GPU compiles, records and replays the program
        with suppress(FloatingPointError):  # generating the text raises it again
            list(generate(model, [0], trial, end_token=-1, decoder=decoder))
    return decoder


def half(context_length: int) -> int:
    """The number of tokens that are dropped when the context overflows."""
    return (context_length + 1) // 2


def window_start(length: int, context_length: int) -> int:
    """Index of the first of `length` tokens that the model still reads: a whole number of halves of the context.

    It depends on nothing else, so a text goes on the same way wherever its prompt ended.
    """
    overflow = max(0, length - context_length)
    return -(-overflow // half(context_length)) * half(context_length)


def next_logits(model: Transformer, tokens: Tensor, cache: KeyValueCache) -> Tensor:
    """Logits (batch, vocab) of the token after `tokens`, (batch, seq), on the CPU; the cache takes in the tokens."""
    residual = model.residual(tokens.to(model.embedding.weight.device), cache=cache)  # (batch, seq, d_model)
    return model.unembed(residual[:, -1]).cpu()


def next_step_logits(
    model: Transformer, decoder: Decoder | None, recent: deque[Tensor], cache: KeyValueCache
) -> Tensor:
    """Logits (batch, vocab) of the token after the last `recent` one, (batch); the cache holds those before it.

    A full cache is emptied, and the newer half is encoded anew. So is the whole text, every time, if the model has
    tricks that look at the token before.
    """
    length, context_length = cache.length, model.config.context_length
    if length == context_length or model.config.looks_back:
        kept = length + 1 if length < context_length else length + 1 - half(length)
        cache.clear()
        return next_logits(model, torch.stack(tuple(recent)[-kept:], dim=1), cache)
    if decoder is None:
        return next_logits(model, recent[-1][:, None], cache)
    return decoder(recent[-1].to(model.embedding.weight.device), cache).cpu()
