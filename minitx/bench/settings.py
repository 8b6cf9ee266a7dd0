"""What `minitx bench` can be asked for: the only home of its defaults, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minitx.system.errors import nearest, require
from minitx.system.files import check_writable

SUITES = {
    "train": "training steps and memory against transformers, PyTorch's encoder and nanoGPT, and where the time goes",
    "generate": "prefill and decoding against transformers and llama2.c",
    "data": "tokenizing against SentencePiece",
    "ceiling": "what the machine can do, and how much of it training uses",
    "scaling": "how time and memory grow with context, width, heads and batch",
    "loss": "seconds to a validation loss, against nanoGPT's published command",
    "gpu": "one table for a CUDA machine",
}
"""Name → what it measures, in reading order."""


@dataclass(frozen=True)
class BenchConfig:
    """Measure minitx on this machine, beside what else there is: in turn, in one run, with minimum and median."""

    suite: str = "train,generate,data,ceiling"
    """Suites to run, with commas: train, generate, data, ceiling, scaling, loss, gpu."""
    shape: str = "default"
    """Shapes to measure, with commas: default, 15m, shakespeare_char_cpu, shakespeare_char, gpu_small, or YAML files of
    settings."""
    repeats: int = 30
    """Most rounds of a comparison; in a round each candidate has its turn."""
    seconds: float = 10.0
    """Time after which a comparison has no further round; there are always three."""
    threads: Literal["auto"] | int = "auto"
    """CPU threads, of the peers too."""
    device: str = "auto"
    """auto, cpu, cuda (or cuda:1 and so on) or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; auto measures generate in both."""
    compile: Literal["auto"] | bool = "auto"
    """Compile with torch.compile: models in train and gpu, decoding in generate and gpu; auto does so on CUDA only."""
    nanogpt: str | None = None
    """Checkout of nanoGPT, for train, loss and gpu."""
    llama2c: str | None = None
    """Compiled run of llama2.c, or the checkout it lies in, for generate."""
    text: str | None = None
    """Text file (.txt): loss needs one; data and train take it instead of python-docs."""
    json: str | None = None
    """File for everything that was measured, each repeat on its own."""
    loss_config: str = "shakespeare_char_cpu"
    """Loss: the configuration that minitx trains, a YAML file or the name of one in configs/."""
    loss_command: Literal["cpu", "gpu"] = "cpu"
    """Loss: nanoGPT's published command for a CPU, or the one for a GPU."""
    loss_target: float = 1.88
    """Loss: validation loss in nats per token to which the seconds are counted."""
    steps: int | None = None
    """Loss: steps that nanoGPT's command takes, if not its own; minitx then takes the same share of its own."""
    turns: int = 40
    """Loss: turns of each side, of which each takes an equal share of its steps."""
    plot: str | None = None
    """Loss: picture of the curves, a .png, .svg or .pdf file."""
    seed: int = 1337
    """Decides everything random."""

    def __post_init__(self) -> None:
        require(self.repeats >= 1, f"repeats is {self.repeats}, but at least 1 is needed.")
        require(0 < self.seconds < math.inf, f"seconds is {self.seconds}, but it must be positive and finite: try 10.")
        require(
            self.threads == "auto" or self.threads >= 1,
            f"threads is {self.threads}, but it must be auto or at least 1.",
        )
        require(self.steps is None or self.steps >= 1, f"steps is {self.steps}, but at least 1 is needed.")
        require(self.turns >= 1, f"turns is {self.turns}, but at least 1 is needed.")
        require(self.loss_target > 0, f"loss_target is {self.loss_target}, but it must be positive.")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}, but it must be at least 0 and less than 2 to the 63.")
        for name in self.suites:
            require(
                name in SUITES,
                f"There is no suite {name!r}{nearest(name, list(SUITES))}: there are {', '.join(SUITES)}.",
            )
        require(bool(self.suites), "suite is empty: name one, such as train.")
        require(bool(self.shapes), "shape is empty: name one, such as default.")
        require(
            self.plot is None or Path(self.plot).suffix.lower() in (".png", ".svg", ".pdf"),
            f"plot is {self.plot}, which is no picture: end its name with .png, .svg or .pdf.",
        )
        require(self.plot is None or "loss" in self.suites, "plot is given, but only the suite loss draws one.")
        require(self.text is None or Path(self.text).is_file(), f"There is no text {self.text}: name a .txt file.")
        require(
            self.text is None or self.text.lower().endswith(".txt"), f"text is {self.text}, but it must be a .txt file."
        )
        for file in (self.json, self.plot):
            if file is not None:
                check_writable(file)
        if "loss" in self.suites:
            require(self.text is not None, "The suite loss needs the text to learn from: give it with --text FILE.")
            require(
                self.nanogpt is not None,
                "The suite loss compares with nanoGPT: give a checkout of it with --nanogpt PATH.",
            )

    @property
    def suites(self) -> list[str]:
        """`suite` as a list, each once."""
        return listed(self.suite)

    @property
    def shapes(self) -> list[str]:
        """`shape` as a list, each once."""
        return listed(self.shape)


def listed(text: str) -> list[str]:
    """Such as "a, b" as a list, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
