"""The settings of `minitx bench`, the only home of their defaults, and their checks."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from minitx.system.errors import UserError, nearest, require
from minitx.system.files import check_writable

N = TypeVar("N", int, float)
SUITES = {
    "train": "training steps and memory against transformers and nanoGPT, and how the time divides",
    "generate": "prefill and decoding against transformers and llama2.c",
    "data": "tokenizing against SentencePiece",
    "ceiling": "what the machine can do, and how much of it training uses",
    "scaling": "how time and memory grow with context, width, heads and batch",
    "parallel": "steps of several processes by part, what they gain, and DistributedDataParallel",
    "loss": "seconds to a validation loss, against nanoGPT's published command",
    "budget": "what a fixed time of training reaches, against nanoGPT, a byte n-gram and xz",
}
"""Suite → what it measures."""
TRACKS = {"python-docs": "default", "tinyshakespeare": "shakespeare_char_cpu", "tales": "tales"}
"""Track of the suite budget → the configuration in configs/ that has its text, and that minitx trains."""


@dataclass(frozen=True)
class BenchConfig:
    """Time minitx and other programs on this machine, by turns in one run: minimum and median."""

    suite: str = "train,generate,data,ceiling"
    """Suites to run, with commas: train, generate, data, ceiling, scaling, parallel, loss, budget."""
    shape: str = "default"
    """Shapes to measure, with commas: default, 15m, shakespeare_char_cpu, shakespeare_char, gpu_small, or YAML files of
    settings."""
    repeats: int = 30
    """Maximum number of rounds; every round times every candidate once."""
    seconds: float = 10.0
    """Time after which a comparison starts no further round; it has three rounds at least."""
    threads: Literal["auto"] | int = "auto"
    """CPU threads, of the peers too."""
    device: str = "auto"
    """auto, cpu, cuda (or cuda:1 and so on) or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; auto measures generate in both."""
    compile: Literal["auto"] | bool = "auto"
    """Compile with torch.compile: models in train, decoding in generate; auto does so on CUDA only."""
    nanogpt: str | None = None
    """Checkout of nanoGPT, for train, loss and budget."""
    llama2c: str | None = None
    """Compiled run of llama2.c, or the checkout it lies in, for generate."""
    text: str | None = None
    """Text file (.txt): loss and the track tinyshakespeare need one; data takes it instead of python-docs."""
    processes: str = "1,2"
    """Parallel: numbers of processes, with commas; the threads are shared out among them."""
    json: str | None = None
    """File for all measurements, with every repeat."""
    loss_config: str = "shakespeare_char_cpu"
    """Loss: the configuration that minitx trains, a YAML file or the name of one in configs/."""
    loss_command: Literal["cpu", "gpu"] = "cpu"
    """Loss and budget: nanoGPT's published command for a CPU, or the one for a GPU."""
    loss_target: float = 1.88
    """Loss: count the seconds to this validation loss, in nats per token."""
    steps: int | None = None
    """Loss: steps of nanoGPT's command, if not the published ones; minitx then takes the same share of its steps.
    Budget: steps of every recipe, in place of those that fit the budgets."""
    turns: int = 40
    """Loss and budget: turns of all sides; a turn takes an equal share of the side's steps."""
    plot: str | None = None
    """Loss: picture of the curves, a .png, .svg or .pdf file."""
    seed: int = 1337
    """Decides everything random."""
    tracks: str = "python-docs,tales"
    """Budget: texts to learn, with commas: python-docs, tinyshakespeare (by characters), tales."""
    budgets: str = "60"
    """Budget: seconds of training, with commas; records are kept for 60 and 300."""
    seeds: str = "1"
    """Budget: how many seeds, from `seed` on; or the seeds themselves, with commas."""
    step_ms: str | None = None
    """Budget: milliseconds of a step of each recipe, in the order of the table, with commas: from a quiet hour, where a
    busy machine would time them badly."""
    budget_config: str | None = None
    """Budget: the recipe that minitx trains on the one track given, a YAML file or the name of one in configs/."""
    against: str | None = None
    """Budget: another recipe for the same track, to compare with."""

    def __post_init__(self) -> None:
        for name in ("repeats", "threads", "steps", "turns"):
            value = getattr(self, name)
            require(value in ("auto", None) or value >= 1, f"{name} is {value}, but it must be at least 1.")
        for name in ("seconds", "loss_target"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name} is {value}, but it must be positive and finite.")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}, but it must be at least 0 and less than 2 to the 63.")
        for name in self.suites:
            hint = nearest(name, list(SUITES))
            require(name in SUITES, f"There is no suite {name!r}{hint}: there are {', '.join(SUITES)}.")
        require(bool(self.suites), "suite is empty: name one, such as train.")
        require(bool(self.shapes), "shape is empty: name one, such as default.")
        if self.plot is not None:
            is_picture = Path(self.plot).suffix.lower() in (".png", ".svg", ".pdf")
            require(is_picture, f"plot is {self.plot}, which is no picture: end its name with .png, .svg or .pdf.")
            require("loss" in self.suites, "plot is given, but only the suite loss draws one.")
        if self.text is not None:
            require(Path(self.text).is_file(), f"There is no text {self.text}: name a .txt file.")
            require(self.text.lower().endswith(".txt"), f"text is {self.text}, but it must be a .txt file.")
        for file in (self.json, self.plot):
            if file is not None:
                check_writable(file)
        require(bool(self.process_counts), "processes is empty: say how many, such as 2.")
        require(bool(self.budget_seconds), "budgets is empty: name one in seconds, such as 60.")
        require(bool(self.track_names), "tracks is empty: name one, such as python-docs.")
        require(
            not (self.step_milliseconds and self.steps), "steps and step_ms both say how long to train: leave one out."
        )
        require(bool(self.seed_list), "seeds is empty: say how many, such as 3.")
        for name in self.track_names if "budget" in self.suites else ():
            hint = nearest(name, list(TRACKS))
            require(name in TRACKS, f"There is no track {name!r}{hint}: there are {', '.join(TRACKS)}.")
            needs_text = name == "tinyshakespeare" and self.text is None
            require(not needs_text, "The track tinyshakespeare needs the text: give it with --text FILE.")
        for option, value in (("budget_config", self.budget_config), ("against", self.against)):
            is_alone = value is None or len(self.track_names) == 1
            require(is_alone, f"{option} is a recipe for one track: name that with --tracks.")
        if "loss" in self.suites:
            require(self.text is not None, "The suite loss needs the text to learn from: give it with --text FILE.")
            require(self.nanogpt is not None, "The suite loss needs nanoGPT: give its checkout with --nanogpt PATH.")

    @property
    def suites(self) -> list[str]:
        """`suite` as a list, without repetitions."""
        return names_in(self.suite)

    @property
    def shapes(self) -> list[str]:
        """`shape` as a list, without repetitions."""
        return names_in(self.shape)

    @property
    def track_names(self) -> list[str]:
        """`tracks` as a list, without repetitions."""
        return names_in(self.tracks)

    @property
    def process_counts(self) -> list[int]:
        """`processes` as numbers, each at least 1; raises UserError for other text."""
        return [number_in(name, "processes", int, 1) for name in names_in(self.processes)]

    @property
    def budget_seconds(self) -> list[float]:
        """`budgets` as numbers, each positive; raises UserError for other text."""
        return [number_in(name, "budgets", float, math.ulp(0)) for name in names_in(self.budgets)]

    @property
    def step_milliseconds(self) -> list[float]:
        """`step_ms` as numbers, each positive; raises UserError for other text."""
        return [number_in(name, "step_ms", float, math.ulp(0)) for name in (self.step_ms or "").split(",") if name]

    @property
    def seed_list(self) -> list[int]:
        """The seeds that `seeds` names; raises UserError for other text."""
        names = names_in(self.seeds)
        if len(names) == 1:
            return list(range(self.seed, self.seed + number_in(names[0], "seeds", int, 1)))
        return [number_in(name, "seeds", int, 0) for name in names]


def names_in(text: str) -> list[str]:
    """The names in a text like "a, b", without repetitions."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def number_in(text: str, name: str, kind: type[N], least: float) -> N:
    """The finite number `text`, at least `least`; raises UserError that names the setting it stands in."""
    with contextlib.suppress(ValueError):
        number = kind(text)
        if least <= number < 2**63:
            return number
    takes = "a number of seeds, or seeds with commas" if name == "seeds" else "positive numbers, with commas"
    raise UserError(f"{name} has {text!r}, but it takes {takes}.")
