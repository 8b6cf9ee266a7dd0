"""nanoGPT's published commands: its model and optimizer, put together as its train.py does, on a text by characters."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.bench.peers import transformers as peers
from minitx.data.batches import validation_windows
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime


@dataclass(frozen=True)
class Command:
    """What nanoGPT's README and config/train_shakespeare_char.py say of one of its commands."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float
    batch_size: int
    steps: int
    device_type: str
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-4
    warmup: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0


COMMANDS = {
    "cpu": Command(4, 4, 128, 64, dropout=0.0, batch_size=12, steps=2000, device_type="cpu"),
    "gpu": Command(6, 6, 384, 256, dropout=0.2, batch_size=64, steps=5000, device_type="cuda"),
}
EVALUATION_BATCH = 64
"""Windows at once."""


class NanoGPT:
    """One training by a command: `step` after `step`, `validate` in between."""

    def __init__(
        self, command: Command, checkout: str, text_file: str, folder: Path, runtime: Runtime, seed: int
    ) -> None:
        """The training part of the text is put into `folder`, from where batches are mapped, as in its script."""
        text = read_text(text_file)
        characters = sorted(set(text))
        number_of = {character: number for number, character in enumerate(characters)}
        tokens = np.array([number_of[character] for character in text], np.uint16)
        boundary = int(len(text) * 0.9)
        require(
            boundary > command.block_size,
            f"{text_file} has {len(text)} characters, too few for nanoGPT's windows of {command.block_size}.",
        )
        self.command, self.device, self.file, self.val = (
            command,
            runtime.device,
            folder / "train.bin",
            tokens[boundary:],
        )
        tokens[:boundary].tofile(self.file)
        self.on_cuda = runtime.device.type == "cuda"
        # Its script takes no autocast on a CPU.
        self.runtime = runtime if self.on_cuda else dataclasses.replace(runtime, dtype=torch.float32)
        torch.manual_seed(seed)
        self.model = peers.nano_gpt(
            checkout,
            n_layer=command.n_layer,
            n_head=command.n_head,
            n_embd=command.n_embd,
            block_size=command.block_size,
            vocab_size=len(characters),
            dropout=command.dropout,
            bias=False,
        ).to(runtime.device)
        self.parameters = list(self.model.parameters())
        settings = {
            "weight_decay": command.weight_decay,
            "learning_rate": command.learning_rate,
            "betas": command.betas,
        }
        self.optimizer = peers.nano_gpt_optimizer(self.model, settings, runtime.device)
        self.forward = torch.compile(self.model) if runtime.compile else self.model

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each (batch, seq), at places drawn with replacement."""
        data, length = np.memmap(self.file, dtype=np.uint16, mode="r"), self.command.block_size
        starts = torch.randint(len(data) - length, (self.command.batch_size,)).tolist()
        both = [
            torch.stack([torch.from_numpy(data[i + shift : i + shift + length].astype(np.int64)) for i in starts])
            for shift in (0, 1)
        ]
        if self.on_cuda:
            both = [part.pin_memory().to(self.device, non_blocking=True) for part in both]
        return both[0], both[1]

    def step(self, number: int) -> Tensor:
        """Update `number`, counted from 0; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.command)
        inputs, targets = self.batch()
        with self.runtime.autocast():
            loss: Tensor = self.forward(inputs, targets)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.command.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.inference_mode()
    def validate(self) -> float:
        """Mean loss in nats per character of the last tenth, by the windows of `evaluate`."""
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64)
        for inputs, targets in validation_windows(self.val, self.command.block_size, EVALUATION_BATCH):
            inputs, targets = inputs.to(self.device), targets.to(self.device)
            with self.runtime.autocast():
                logits = self.model(inputs, targets)[0]  # (batch, seq, vocab); without targets it gives the last alone
            total += F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum").cpu()
        self.model.train()
        return float(total) / (len(self.val) - 1)


def learning_rate(step: int, command: Command) -> float:
    """nanoGPT's schedule: linear warm-up, then half a cosine from the peak down to the minimum."""
    if step < command.warmup:
        return command.learning_rate * (step + 1) / (command.warmup + 1)
    progress = min(1.0, (step - command.warmup) / max(1, command.steps - command.warmup))
    height = 0.5 * (1 + math.cos(math.pi * progress))
    return command.min_learning_rate + height * (command.learning_rate - command.min_learning_rate)


def read_text(file: str) -> str:
    """The whole of a text file; raises UserError where it is not UTF-8."""
    try:
        return Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}): convert it to UTF-8.") from error
