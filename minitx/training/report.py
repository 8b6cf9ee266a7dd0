"""Everything a run tells while it trains: the progress bar, metrics.jsonl, TensorBoard, samples, pictures of heads."""

from __future__ import annotations

import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from minitx import __version__
from minitx.config import Config, GenerateConfig
from minitx.data.prepare import Prepared
from minitx.generation.generate import complete
from minitx.heads import snapshots
from minitx.heads.links import measure_links, uniform
from minitx.heads.repeats import score_repetition
from minitx.heads.view import View, view_probes
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token, parameters_by_part
from minitx.run.folder import Run
from minitx.run.logs import HEADS_FILE
from minitx.system.files import without_nan
from minitx.system.memory import memory_bytes
from minitx.system.runtime import Runtime
from minitx.system.text import visible, warn
from minitx.tensorboard.writer import METRIC_TAGS, EventWriter
from minitx.training.model_card import flatten, model_card

RESULTS = ("val_loss", "best_val_loss", "val_bits_per_byte", "parameters", "seconds", "cache_bytes_per_token")
"""What of summary.json stands in TensorBoard's table of hyperparameters."""
COMPARED = ("train_tokens_per_second", "decode_tokens_per_second")
"""Results that only `minitx compare` measures. Every run has columns for them, for TensorBoard takes the columns of the
table from whichever run it reads first."""


class Report:
    """The voice of one run; a context manager that closes what it opened."""

    def __init__(
        self, config: Config, run: Run, prepared: Prepared, runtime: Runtime, model: Transformer, step: int
    ) -> None:
        self.config, self.run, self.prepared, self.runtime, self.model = config, run, prepared, runtime, model
        self.start_step = step
        self.board: EventWriter | None = None
        self.val_loss: float | None = None
        self.probes = config.log.read_probes()
        self.bar = tqdm(
            total=config.train.steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            bar_format="{percentage:3.0f}% {bar} {n}/{total} steps, {remaining} left{postfix}",
        )

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def is_due(self, step: int) -> bool:
        """Whether heads or a sample are to be shown at `step`."""
        log, train = self.config.log, self.config.train
        return any(every and step % every == 0 for every in (log.heads_every, log.snapshots_every, train.sample_every))

    def advance(self) -> None:
        """One step more is done."""
        self.bar.update()

    def metrics(self, line: dict[str, Any]) -> None:
        """Write one line of metrics everywhere."""
        self.run.append_metrics(line)
        memory = {"memory_bytes": memory_bytes(self.runtime.device)}
        values = {name: value for name, value in {**line, **memory}.items() if name in METRIC_TAGS}
        self.opened_board().scalars(line["step"], values)
        speed = f"{line['tokens_per_second']:,.0f} tokens/s"
        if line["val_loss"] is not None:
            self.val_loss = line["val_loss"]
            if self.bar.disable:
                print(
                    f"step {line['step']}/{self.config.train.steps}: training loss {line['train_loss']:.3f}, "
                    f"validation loss {line['val_loss']:.3f} ({line['val_bits_per_byte']:.3f} bits per byte), {speed}",
                    flush=True,
                )
        validation = f", val {self.val_loss:.3f}" if self.val_loss is not None else ""
        self.bar.set_postfix_str(f"loss {line['train_loss']:.3f}{validation}, {speed}", refresh=False)

    def heads(self, step: int, last: bool) -> None:
        """Log what every head does on the probes, and its scores on validation text: as curves and pictures for
        TensorBoard's own tabs, and as a snapshot for the Attention tab."""
        log = self.config.log
        pictures, snapshot = (
            bool(every) and (step % every == 0 or last) for every in (log.heads_every, log.snapshots_every)
        )
        if not (pictures or snapshot):
            return
        prepared, precision = self.prepared, self.runtime.autocast
        view = view_probes(self.model, prepared.tokenizer, self.probes, prepared.val, precision)
        if snapshot and view.probes:
            snapshots.write(self.run.path, step, view.snapshot(step))
        if pictures:
            self.pictures(step, view)

    def pictures(self, step: int, view: View) -> None:
        """Log what the heads do for TensorBoard's own tabs, and as a line of heads.jsonl."""
        board, val = self.opened_board(), self.prepared.val
        with self.runtime.autocast():
            repeated = score_repetition(self.model, val)
        scores = {**view.scores, "induction_on_repeats": repeated.induction}
        by_chance = {**view.chance, "induction_on_repeats": repeated.chance}
        line: dict[str, Any] = {
            "step": step,
            "scores": {name: values.tolist() for name, values in scores.items()},
            "chance": by_chance,
            "links": [],
            "repeated_loss": [repeated.first_loss, repeated.second_loss],
        }
        links, evenly = {}, {}
        for i, (probe, its_links) in enumerate(zip(view.probes, view.links, strict=True)):
            board.patterns(step, i, list(probe.tokens), probe.patterns)
            with self.runtime.autocast():
                measured = measure_links(self.model, its_links, probe.patterns, val)
            for found in measured:
                name = f"probe {i} {found.link.name}"
                links[name], evenly[name] = found.attention, uniform(found.link)
                figures = {key: getattr(found, key).tolist() for key in ("attention", "chance", "spread")}
                line["links"].append({"probe": i, "name": found.link.name, **figures})
        board.head_scores(step, {**scores, **links}, {**by_chance, **evenly})
        self.run.append_metrics(without_nan(line), HEADS_FILE)
        board.flush()

    def sample(self, step: int, last: bool) -> None:
        """Print and log a text that the model writes."""
        train = self.config.train
        if not train.sample_every or not (step % train.sample_every == 0 or last):
            return
        options = GenerateConfig(max_new_tokens=train.sample_tokens, seed=self.config.seed)
        try:
            sample = complete(self.model, self.prepared.tokenizer, train.sample_prompt, options)[0]
        except FloatingPointError:  # the next step finds no finite loss either, and says what is to be done
            self.bar.clear()
            warn(f"There is no sample at step {step}, for the model's logits are not finite.")
            return
        text = (sample.prompt or "") + sample.completion
        self.bar.clear()
        print(f"\n--- sample at step {step} ---\n{visible(text.strip())}\n---\n", flush=True)
        self.opened_board().text("Sample", text, step)

    def skipped(self, step: int, record: Path) -> None:
        """Say that a step changed nothing."""
        self.bar.clear()
        warn(f"The loss or its gradient at step {step} is not finite, so the step is left out: see {record}.")

    def flush(self) -> None:
        """Bring to disk what was written, so that no checkpoint is ahead of its curves."""
        if self.board is not None:
            self.board.flush()

    def opened_board(self) -> EventWriter:
        """TensorBoard's writer, opened at first use so that training starts without waiting for it."""
        if self.board is None:
            self.board = EventWriter(self.run.path, self.start_step + 1 if self.start_step else 0)
            snapshots.forget_after(self.run.path, self.start_step)
            if self.start_step == 0:
                config = (self.run.path / "config.yaml").read_text("utf-8")
                self.board.text("Run/configuration", config, 0)
                self.board.markdown("Run/model card", model_card(self.model, self.prepared, self.runtime), 0)
                self.board.hyperparameters(flatten(self.config.to_dict()), dict.fromkeys(RESULTS + COMPARED, math.nan))
        return self.board

    def summarise(self, progress: Any) -> dict[str, Any]:
        """Write summary.json, and the results of the run for TensorBoard."""
        val_tokens, val_bytes = len(self.prepared.val), self.prepared.val_bytes
        summary: dict[str, Any] = {
            "steps": progress.step,
            "val_loss": progress.val_loss,
            "best_val_loss": progress.best_val_loss,
            "best_step": progress.best_step,
            "val_bits_per_byte": progress.val_loss * (val_tokens - 1) / val_bytes / math.log(2),
            "parameters": sum(parameters_by_part(self.model).values()),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "cache_bytes_per_token": cache_bytes_per_token(self.model.config),
            "memory_bytes": memory_bytes(self.runtime.device),
            "device": str(self.runtime.device),
            "fingerprint": self.prepared.fingerprint,
            "versions": {"minitx": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        results = {name: float(summary.get(name, math.nan)) for name in RESULTS + COMPARED}
        self.opened_board().hyperparameters(flatten(self.config.to_dict()), results)
        self.flush()
        self.run.write_json("summary.json", summary)  # last: with it the run is finished
        return summary

    def finish(self, progress: Any) -> None:
        """Write summary.json and name the next two commands."""
        path, summary = self.run.path, self.summarise(progress)
        self.bar.close()
        print(
            f"Trained {summary['parameters']:,} parameters on {progress.tokens:,} tokens in {progress.seconds:.0f} s; "
            f"validation loss {progress.val_loss:.3f} nats per token, "
            f"{summary['val_bits_per_byte']:.3f} bits per byte.\n"
            f"The run is in {path}. Next:\n"
            f'  python generate.py {path} --prompt "The"\n'
            f"  tensorboard --logdir {path.parent}"
        )
