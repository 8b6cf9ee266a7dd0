"""The suite `generate`: tokens per second of prefill and decoding, against transformers and llama2.c.

All candidates write the same text: greedily, from the same weights, the same number of tokens. minitx is
`minitx.generation.generate`, which is what users get.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minitx.bench.peers import transformers
from minitx.bench.peers.llama2c import Llama2c, find_run, has_openmp
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Row, Table
from minitx.config import GenerateConfig
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.generate import generate
from minitx.interop.llama2c import START
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.timing import Candidate

OURS, COMPILED, LLAMA, LLAMA2C = "minitx", "minitx, compiled", "transformers Llama", "llama2.c run, float32"
BATCHES = (1, 8)
MAX_NEW, MAX_UNCACHED = 256, 64
"""Tokens to write at most, with the cache and without."""
MAX_SEEDS = 50

Written = list[list[int]]
"""The new tokens of every sample."""


class Work(NamedTuple):
    """What all candidates do: write `n_new` tokens after a prompt, in a batch of equal samples."""

    n_new: int
    prompt: tuple[int, ...] = (START,)
    batch: int = 1
    cached: bool = True

    @property
    def name(self) -> str:
        what = f"decode {self.n_new}" if self.n_new > 1 else f"prefill {len(self.prompt)}"
        return f"{what}{'' if self.cached else ' without cache'}, batch {self.batch}"


def run(bench: Bench) -> Iterator[Table]:
    """A table for every shape and precision."""
    for shape in bench.shapes:
        for precision in ("float32", "bfloat16") if bench.settings.dtype == "auto" else (bench.runtime.precision,):
            yield compare(bench, shape.as_llama(), precision)


def works(shape: Shape) -> list[Work]:
    """The works to time at a shape."""
    context = shape.model.context_length
    prompt = torch.randint(2, shape.vocab_size, (context - 1,), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        *(Work(min(context, MAX_NEW), batch=batch) for batch in BATCHES),
        Work(min(context, MAX_UNCACHED), cached=False),
        *(Work(1, tuple(prompt), batch) for batch in BATCHES),
    ]


def compare(bench: Bench, shape: Shape, precision: str) -> Table:
    """All works of a shape in one precision, by every candidate that can do them."""
    settings, runtime = bench.settings, bench.runtime
    model = model_of(shape, settings.seed).to(runtime.device, getattr(torch, precision))
    title = f"generate, tokens per second · {precision} · {shape.describe()}"
    table = Table(title, raw={"shape": dataclasses.asdict(shape), "precision": precision})
    reason = transformers.why_not()
    llama, base = (None, OURS) if reason else (transformers.llama(model), LLAMA)
    table.notes += [reason] if reason else []
    program = find_run(settings.llama2c) if settings.llama2c and runtime.device.type == "cpu" else None
    if settings.llama2c is None:
        table.notes.append("llama2.c is left out: give its compiled run with --llama2c PATH.")
    elif program and not has_openmp(program):
        table.notes.append(f"{LLAMA2C} was compiled without OpenMP, so it takes one thread.")
    with tempfile.TemporaryDirectory() as folder:
        llama2c = Llama2c(program, model, Path(folder), runtime.threads) if program else None
        for work in works(shape):
            decodes = work.cached and work.n_new > 1
            writers: dict[str, Callable[[], Written]] = {OURS: partial(write_tokens, model, work)}
            if runtime.compile and decodes and CompiledDecoder.why_not(model, work.batch) is None:
                writers[COMPILED] = partial(write_tokens, model, work, CompiledDecoder(model, work.batch))
            if llama is not None:
                writers[LLAMA] = partial(write_with_llama, llama, work)
            written = {name: write() for name, write in writers.items()}
            candidates: dict[str, Candidate] = {**writers}
            if llama2c is not None and decodes and work.batch == 1:
                written[LLAMA2C] = [llama2c.write(work.n_new)[0]]
                candidates[LLAMA2C] = partial(llama2c.seconds, work.n_new)
            same: Row = {n: same_tokens(written[OURS], tokens, n, work, precision) for n, tokens in written.items()}
            timed = bench.time(candidates, f"{work.name}, {precision}")
            counted = max(work.n_new, len(work.prompt)) * work.batch  # of prefill, the prompt's tokens
            table.add_rates(work.name, timed, base, counted, {"work": work.name}, **{"same tokens": same})
    table.notes.append(
        "decode N: all of a call that writes N tokens after a prompt of one. prefill N: all of a call that writes one "
        f"token after N. × is against {base}. minitx encodes the prompt of a batch once."
    )
    return table


def model_of(shape: Shape, seed: int) -> Transformer:
    """A model from the first seed whose greedy text has no start token, at which llama2.c would stop."""
    longest = Work(min(shape.model.context_length, MAX_NEW))
    for attempt in range(seed, seed + MAX_SEEDS):
        torch.manual_seed(attempt)
        model = Transformer(shape.model, shape.vocab_size).eval()
        if START not in write_tokens(model, longest)[0]:
            return model
    raise UserError(f"None of {MAX_SEEDS} seeds gives weights that never write token {START}: try --seed.")


@torch.inference_mode()
def write_tokens(model: Transformer, work: Work, decoder: CompiledDecoder | None = None) -> Written:
    """minitx's text: from `generate`, or without a cache from the whole text for every token."""
    if work.cached:
        options = GenerateConfig(temperature=0, max_new_tokens=work.n_new, num_samples=work.batch)
        steps = list(generate(model, list(work.prompt), options, end_token=-1, decoder=decoder))
        return [[int(token) for token in sample if token is not None] for sample in zip(*steps, strict=True)]
    tokens = torch.tensor([work.prompt] * work.batch, device=model.embedding.weight.device)
    for _ in range(work.n_new):
        logits = model.unembed(model.residual(tokens)[:, -1])  # of the last token alone, as the peer computes them
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens[:, len(work.prompt) :].tolist()


@torch.inference_mode()
def write_with_llama(llama: Any, work: Work) -> Written:
    """The text of transformers' `generate`."""
    prompt = torch.tensor([work.prompt] * work.batch, device=llama.device)
    mask = torch.ones_like(prompt)
    tokens = llama.generate(prompt, attention_mask=mask, max_new_tokens=work.n_new, use_cache=work.cached)
    return tokens[:, len(work.prompt) :].tolist()


def same_tokens(ours: Written, theirs: Written, name: str, work: Work, precision: str) -> str:
    """How many tokens are equal before the first difference: "yes" for all, or "first N".

    Raises UserError for a difference in float32.
    """
    equal = [*(a == b for a, b in zip(ours[0], theirs[0], strict=False)), False].index(False)
    require(
        ours == theirs or precision != "float32",
        f"{name} writes another text from the same weights at '{work.name}' (after {equal} equal tokens), so the two "
        "are not timed against each other: try another --seed.",
    )
    return "yes" if ours == theirs else f"first {equal}"
