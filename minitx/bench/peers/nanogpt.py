"""nanoGPT from its checkout: its model and optimizer, and its published commands put together as its train.py does."""

import contextlib
import dataclasses
import importlib.machinery
import io
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from minitx.bench.shapes import Shape, shape_of
from minitx.bench.training import TimedTraining
from minitx.config import Config, ModelConfig, TrainConfig
from minitx.data.token_files import Tokens
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime


def load_module(checkout: str) -> ModuleType:
    """nanoGPT's model.py, imported from its checkout; raises UserError for another folder."""
    file = Path(checkout) / "model.py"
    require(file.is_file(), f"{checkout} is no checkout of nanoGPT: it has no model.py.")
    name = "minitx_benchmarks_nanogpt_model"
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    sys.modules[name] = module = ModuleType(name)  # its dataclass looks itself up in sys.modules
    try:
        loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{file} cannot be imported ({type(error).__name__}: {error}).") from error
    require(hasattr(module, "GPT"), f"{file} is not nanoGPT's model: it has no class GPT.")
    return module


def build_training(checkout: str, shape: Shape, tokens: Tokens, runtime: Runtime) -> TimedTraining:
    """nanoGPT's model of this shape without biases and its optimizer, on windows drawn at random."""
    module, model, train = load_module(checkout), shape.model, shape.train
    sizes = {"n_layer": model.n_layer, "n_head": model.n_head, "n_embd": model.d_model, "vocab_size": shape.vocab_size}
    others = {"block_size": model.context_length, "dropout": model.dropout, "bias": False}
    betas, kind = (train.beta1, train.beta2), runtime.device.type
    with contextlib.redirect_stdout(io.StringIO()):  # both print
        gpt = module.GPT(module.GPTConfig(**sizes, **others)).to(runtime.device)
        optimizer = gpt.configure_optimizers(train.weight_decay, train.learning_rate, betas, kind)
    loss_of = runtime.compiled(lambda inputs, targets: gpt(inputs, targets)[1])
    batches = SimpleNamespace(next=partial(random_batch, tokens, model.context_length, train.batch_size))
    return TimedTraining(shape, AllLogits(gpt, model.context_length), loss_of, [optimizer], batches, runtime)


class AllLogits(nn.Module):
    """nanoGPT's model as `evaluate` calls it: without targets, it would give the logits of the last token alone."""

    def __init__(self, gpt: nn.Module, context_length: int) -> None:
        super().__init__()
        self.gpt, self.config = gpt, SimpleNamespace(context_length=context_length)

    def forward(self, tokens: Tensor, heads: None = None) -> Tensor:
        self.gpt.eval()
        logits: Tensor = self.gpt(tokens, tokens)[0]
        self.gpt.train()
        return logits


def random_batch(tokens: Tokens, length: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, int64, both (batch, seq), at places drawn with replacement from torch's generator."""
    starts = torch.randint(len(tokens) - length, (batch_size,)).tolist()
    windows = np.stack([tokens[start : start + length + 1] for start in starts])  # (batch, seq + 1)
    inputs, targets = (torch.from_numpy(part.astype(np.int64)) for part in (windows[:, :-1], windows[:, 1:]))
    return inputs, targets


def published(batch_size: int, steps: int, model: ModelConfig) -> Config:
    """A command of nanoGPT's README with the optimizer of config/train_shakespeare_char.py."""
    adamw = TrainConfig(steps, batch_size, optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, beta2=0.99)
    return Config(model=model, train=dataclasses.replace(adamw, warmup_steps=100))


MIN_LEARNING_RATE = 1e-4
COMMANDS = {
    "cpu": published(12, 2000, ModelConfig(n_layer=4, n_head=4, d_model=128, context_length=64)),
    "gpu": published(64, 5000, ModelConfig(n_layer=6, n_head=6, d_model=384, context_length=256, dropout=0.2)),
}


def command_training(
    command: Config, checkout: str, text_file: str, runtime: Runtime, seed: int
) -> tuple[TimedTraining, Tokens]:
    """nanoGPT's training by `command` on the characters of a text, and their last tenth for validation."""
    text, length = Path(text_file).read_bytes().decode("utf-8"), command.model.context_length
    characters = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens, boundary = np.array([characters[character] for character in text], np.uint16), int(len(text) * 0.9)
    require(boundary > length, f"{text_file} has {len(text)} characters, too few for nanoGPT's windows of {length}.")
    training = tokens_training(command, checkout, tokens[:boundary], len(characters), runtime, seed)
    return training, tokens[boundary:]


def tokens_training(
    command: Config, checkout: str, tokens: Tokens, vocab_size: int, runtime: Runtime, seed: int
) -> TimedTraining:
    """nanoGPT's training by `command` on any tokens below `vocab_size`."""
    if runtime.device.type != "cuda":  # its script takes no autocast on a CPU
        runtime = dataclasses.replace(runtime, dtype=torch.float32)
    torch.manual_seed(seed)
    return build_training(checkout, shape_of("nanoGPT", command, vocab_size), tokens, runtime)


def learning_rate(step: int, train: TrainConfig) -> float:
    """nanoGPT's schedule: linear warm-up, then half a cosine from the peak to the minimum."""
    peak, warmup = train.learning_rate, train.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, train.steps - warmup))
    return MIN_LEARNING_RATE + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - MIN_LEARNING_RATE)
