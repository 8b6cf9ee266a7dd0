"""The suite `generate`: tokens per second of prefill and decoding, against transformers and llama2.c.

All write the same text: from one set of weights the likeliest token each time, the same number of tokens. minitx is
`minitx.generation.generate`, which is what users get.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minitx.bench.peers import llama2c
from minitx.bench.peers import transformers as peers
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.tables import RATES, Table, by_turns, rates, raw_seconds
from minitx.config import GenerateConfig
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.generate import generate
from minitx.interop import llama2c as llama2c_format
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime
from minitx.system.timing import Candidate

OURS, COMPILED, LLAMA, LLAMA2C = "minitx", "minitx, compiled", "transformers Llama", "llama2.c run, float32"
BATCHES = (1, 8)
MAX_NEW, MAX_UNCACHED = 256, 64
"""Tokens that are written at most, with the cache and without."""
MAX_SEEDS = 50

Writes = Callable[[], list[list[int]]]
"""Does its work; the new tokens of each sample."""


@dataclass(frozen=True)
class Work:
    """Something that every candidate does: write `n_new` tokens after a prompt, in a batch of equal samples."""

    name: str
    prompt: list[int]
    n_new: int
    batch: int = 1
    cached: bool = True

    @property
    def counted(self) -> int:
        """Tokens that the rate counts: those of a prompt where only one is written, else the new ones."""
        return (len(self.prompt) if self.n_new == 1 else self.n_new) * self.batch


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """A table for each shape and precision."""
    dtypes = [torch.float32, torch.bfloat16] if settings.dtype == "auto" else [runtime.dtype]
    for shape in shapes:
        for dtype in dtypes:
            yield compare(settings, shape.as_llama(), runtime, dtype)


def works(shape: Shape) -> list[Work]:
    """What is measured at a shape."""
    context = shape.model.context_length
    prompt = torch.randint(2, shape.vocab_size, (context - 1,), generator=torch.Generator().manual_seed(0)).tolist()
    start, new, uncached = [llama2c_format.START], min(context, MAX_NEW), min(context, MAX_UNCACHED)
    return [
        *(Work(f"decode {new}, batch {batch}", start, new, batch) for batch in BATCHES),
        Work(f"decode {uncached} without cache, batch 1", start, uncached, cached=False),
        *(Work(f"prefill {len(prompt)}, batch {batch}", prompt, 1, batch) for batch in BATCHES),
    ]


def compare(settings: BenchConfig, shape: Shape, runtime: Runtime, dtype: torch.dtype) -> Table:
    """Every work of a shape in one precision, each with the candidates that can do it."""
    precision = str(dtype).removeprefix("torch.")
    table = Table(
        f"generate, tokens per second · {precision} · {shape.describe().rsplit(', batch', 1)[0]}",
        ["work", "candidate", *RATES, "same tokens"],
        raw={"shape": shape.as_json(), "precision": precision},
    )
    model = model_of(shape, settings.seed).to(runtime.device, dtype)
    theirs = None
    if reason := peers.why_no_transformers():
        table.notes.append(reason)
    else:
        theirs = greedy_llama(model)
    program = None
    if settings.llama2c is None:
        table.notes.append("llama2.c is left out: give its compiled run with --llama2c PATH.")
    elif runtime.device.type == "cpu":
        program = llama2c.find_run(settings.llama2c)
        if not llama2c.has_openmp(program):
            table.notes.append(f"{LLAMA2C} was compiled without OpenMP, so it takes one thread.")
    with tempfile.TemporaryDirectory() as folder:
        for work in works(shape):
            writers: dict[str, Writes] = {OURS: ours_does(model, work)}
            if can_compile(model, work, runtime):
                writers[COMPILED] = ours_does(model, work, compile=True)
            if theirs is not None:
                writers[LLAMA] = theirs_does(theirs, work, runtime.device)
            written = {name: writes() for name, writes in writers.items()}
            candidates: dict[str, Candidate] = {**writers}
            if program and work.batch == 1 and work.n_new > 1 and work.cached:
                runs = prepare_llama2c(program, model, Path(folder), work, runtime.threads)
                candidates[LLAMA2C] = own_seconds(runs, work)
                written[LLAMA2C] = [runs().tokens]
            timed = by_turns(settings, candidates, runtime.device, f"{work.name}, {precision}")
            base = LLAMA if LLAMA in candidates else OURS
            found = rates(timed, base, work.counted)
            for name, rate in found.items():
                same = require_same(written[OURS], written[name], name, work, dtype)
                table.rows.append([work.name, name, *rate, same])
            table.raw[work.name] = raw_seconds(timed)
    table.notes.append(
        "decode N: all of a call that writes N tokens after a prompt of one. prefill N: all of a call that writes one "
        f"token after N. × is against {LLAMA if theirs is not None else OURS}. minitx encodes the prompt of a batch "
        "once."
    )
    return table


def model_of(shape: Shape, seed: int) -> Transformer:
    """A model whose greedy text never has llama2.c's start token, at which that would stop: of the first such seed."""
    longest = Work("", [llama2c_format.START], min(shape.model.context_length, MAX_NEW))
    for each in range(seed, seed + MAX_SEEDS):
        torch.manual_seed(each)
        model = Transformer(shape.model, shape.vocab_size).eval()
        if llama2c_format.START not in ours_writes(model, longest)[0]:
            return model
    raise UserError(
        f"None of {MAX_SEEDS} seeds gives weights that never write token {llama2c_format.START}: try --seed."
    )


# minitx


def can_compile(model: Transformer, work: Work, runtime: Runtime) -> bool:
    """Whether compilation was asked for and changes this work."""
    return runtime.compile and work.cached and work.n_new > 1 and CompiledDecoder.why_not(model, work.batch) is None


def ours_does(model: Transformer, work: Work, compile: bool = False) -> Writes:
    """minitx at its work, with its cache, or from the whole text for every token."""
    if work.cached:
        decoder = CompiledDecoder(model, work.batch) if compile else None
        return lambda: ours_writes(model, work, decoder)
    device = model.embedding.weight.device

    @torch.inference_mode()
    def without_cache() -> list[list[int]]:
        tokens = torch.tensor([work.prompt] * work.batch, device=device)
        for _ in range(work.n_new):
            tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
        written: list[list[int]] = tokens[:, len(work.prompt) :].tolist()
        return written

    return without_cache


def ours_writes(model: Transformer, work: Work, decoder: CompiledDecoder | None = None) -> list[list[int]]:
    """The new tokens of each sample, from `generate`."""
    options = GenerateConfig(temperature=0, max_new_tokens=work.n_new, num_samples=work.batch)
    columns = [list(step) for step in generate(model, work.prompt, options, end_token=-1, decoder=decoder)]
    return [[int(token) for token in row if token is not None] for row in zip(*columns, strict=True)]


# Peers


def greedy_llama(model: Transformer) -> Any:
    """transformers' model with the same weights, found equal, set to write greedily and not to stop."""
    import transformers

    theirs = peers.llama(model).eval()
    peers.require_equal_logits(model, lambda tokens: theirs(tokens).logits, "transformers' Llama")
    theirs.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)
    return theirs


def theirs_does(model: Any, work: Work, device: torch.device) -> Writes:
    """transformers' `generate` at its work."""
    prompt = torch.tensor([work.prompt] * work.batch, device=device)
    mask = torch.ones_like(prompt)

    @torch.inference_mode()
    def write() -> list[list[int]]:
        tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=work.n_new, use_cache=work.cached)
        written: list[list[int]] = tokens[:, prompt.size(1) :].tolist()
        return written

    return write


def prepare_llama2c(
    program: Path, model: Transformer, folder: Path, work: Work, threads: int
) -> Callable[[], llama2c.Ran]:
    """A call of llama2.c's run at its work, with files of its own."""
    weights, vocabulary = folder / "model.bin", folder / "tokenizer.bin"
    if not weights.exists():
        llama2c_format.export_weights(copy.deepcopy(model).float(), weights)
        llama2c_format.export_vocabulary(model.vocab_size, vocabulary)
    return lambda: llama2c.run(program, weights, vocabulary, work.n_new, threads)


def own_seconds(runs: Callable[[], llama2c.Ran], work: Work) -> Candidate:
    """The seconds of a run by the rate that it prints itself, in which neither its start nor its first token counts."""
    return lambda: work.n_new / runs().tokens_per_second


def require_same(ours: list[list[int]], theirs: list[list[int]], name: str, work: Work, dtype: torch.dtype) -> str:
    """How many tokens agree before the first that does not, in words; in float32 all must, or UserError is raised."""
    together = next(
        (i for i, (a, b) in enumerate(zip(ours[0], theirs[0], strict=False)) if a != b),
        min(len(ours[0]), len(theirs[0])),
    )
    if ours == theirs:
        return "yes"
    require(
        dtype != torch.float32,
        f"{name} writes another text from the same weights at '{work.name}' (after {together} equal tokens), so "
        "the two are not timed against each other: try another --seed.",
    )
    return f"first {together}"
