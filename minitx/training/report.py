"""What a run reports while it trains: the progress bar, metrics.jsonl, TensorBoard, samples, pictures of heads."""

import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm

from minitx import __version__
from minitx.config import GenerateConfig
from minitx.generation.generate import complete
from minitx.heads import examples_file, snapshots
from minitx.heads.kinds import Answers
from minitx.model_size import cache_bytes_per_token, parameters_by_part
from minitx.run import weights
from minitx.system.files import read_file
from minitx.system.memory import memory_bytes
from minitx.system.program import command
from minitx.system.text import visible, warn
from minitx.tensorboard.writer import METRIC_TAGS, EventWriter
from minitx.training.example_log import log_examples
from minitx.training.head_log import log_heads
from minitx.training.kind_log import KindLog
from minitx.training.model_card import hyperparameters, model_card
from minitx.training.state import Due, Training, bits_per_byte
from minitx.training.verdict import verdict
from minitx.training.verdict_figures import measure

RESULTS = ("parameters", "seconds", "cache_bytes_per_token")
"""Values of summary.json without a curve, for TensorBoard."""


class Report:
    """Reports on a run that goes on from `start_step` (by default the step of `training`); closes what it opened."""

    def __init__(self, training: Training, start_step: int | None = None) -> None:
        self.training = training
        self.start_step = training.step if start_step is None else start_step
        self.events: EventWriter | None = None
        self.kinds = KindLog(training)
        self.answers: Answers | None = None  # at the last evaluation, of a run that learns tales
        self.bar = tqdm(
            total=training.config.train.steps,
            initial=training.step,
            unit="step",
            dynamic_ncols=True,
            disable=None,  # where standard error is no terminal
            bar_format="{percentage:3.0f}% {bar} {n}/{total} steps, {remaining} left{postfix}",
        )

    def __enter__(self) -> Self:
        snapshots.forget_after(self.training.run.path, self.start_step)
        weights.forget_after(self.training.run.path, self.start_step, self.training.weights_steps)
        examples_file.forget_after(self.training.run.path, self.start_step)
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.events is not None:
            self.events.close()

    def advance(self) -> None:
        """Count one step more."""
        self.bar.update()

    def step(self, line: dict[str, Any], due: Due) -> None:
        """Report what is due of metrics, heads and a sample."""
        if due.evaluation and self.kinds.is_on:
            self.answers = self.kinds.answers()
            line |= {"above_entropy": self.answers.above.value, "accuracy": self.answers.shares()}
            self.writer().accuracy(line["step"], line["accuracy"])
        if due.metrics or due.evaluation:
            self.metrics(line)
        self.heads(due)
        log_examples(self.training)
        if due.sample:
            self.sample()

    def metrics(self, line: dict[str, Any]) -> None:
        """Write one line of metrics to metrics.jsonl, TensorBoard, the progress bar or standard output."""
        training = self.training
        training.run.append_metrics(line)
        training.logged = replace(training.progress)
        more: dict[str, float] = {"memory_bytes": memory_bytes(training.runtime.device)}
        if line["val_loss"] is not None:
            more["best_val_loss"] = training.progress.best_val_loss
        values = {name: value for name, value in {**line, **more}.items() if name in METRIC_TAGS}
        self.writer().scalars(line["step"], values)
        speed = f"{line['tokens_per_second']:,.0f} tokens/s"
        if line["val_loss"] is not None and self.bar.disable:
            unit = "bits per byte"
            if "above_entropy" in line:
                unit += f", {line['above_entropy']:.3f} nats above the entropy"
            print(
                f"step {line['step']}/{training.config.train.steps}: training loss {line['train_loss']:.3f}, "
                f"validation loss {line['val_loss']:.3f} ({line['val_bits_per_byte']:.3f} {unit}), {speed}",
                flush=True,
            )
        val_loss = training.progress.val_loss
        validation = "" if val_loss is None else f", val {val_loss:.3f}"
        self.bar.set_postfix_str(f"loss {line['train_loss']:.3f}{validation}, {speed}", refresh=False)

    def heads(self, due: Due) -> None:
        """Log the heads, if that is due."""
        if due.heads or due.snapshot:
            log_heads(self.training, due, self.kinds, self.writer)

    def sample(self) -> None:
        """Print and log a text that the model writes."""
        training, train, step = self.training, self.training.config.train, self.training.step
        options = GenerateConfig(max_new_tokens=train.sample_tokens, seed=training.config.seed)
        self.bar.clear()
        try:
            sample = complete(training.model, training.prepared.tokenizer, train.sample_prompt, options)[0]
        except FloatingPointError:  # the next step finds no finite loss either, and says what to do
            warn(f"There is no sample at step {step}, for the model's logits are not finite.")
            return
        text = (sample.prompt or "") + sample.completion
        print(f"\n--- sample at step {step} ---\n{visible(text.strip())}\n---\n", flush=True)
        self.writer().text("Sample", text, step)

    def skipped(self, record: Path) -> None:
        """Warn that the last step was left out; the file `record` has its batch."""
        self.bar.clear()
        step = self.training.step
        warn(f"The loss or its gradient at step {step} is not finite, so the step is left out: see {record}.")

    def flush(self) -> None:
        """Write buffered events to disk, so that no checkpoint is ahead of its curves."""
        if self.events is not None:
            self.events.flush()

    def writer(self) -> EventWriter:
        """TensorBoard's writer, opened at first use so that training starts without waiting for it."""
        if self.events is None:
            training, path = self.training, self.training.run.path
            first = self.start_step + 1 if self.start_step else 0
            self.events = EventWriter(path, first, training.config.log.head_scalars)
            if self.start_step == 0:
                card = model_card(training.model, training.prepared, training.runtime)
                self.events.text("Run/configuration", read_file(path / "config.yaml").decode(), 0)
                self.events.markdown("Run/model card", card, 0)
                self.events.hyperparameters(hyperparameters(training.config), {})
        return self.events

    def summarise(self) -> dict[str, Any]:
        """Write summary.json, and the results of the run for TensorBoard."""
        training, prepared, progress = self.training, self.training.prepared, self.training.progress
        assert progress.val_loss is not None
        summary: dict[str, Any] = {
            "steps": progress.step,
            "val_loss": progress.val_loss,
            "best_val_loss": progress.best_val_loss,
            "best_step": progress.best_step,
            "val_bits_per_byte": bits_per_byte(progress.val_loss, len(prepared.val), prepared.val_bytes),
            "parameters": sum(parameters_by_part(training.model).values()),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "cache_bytes_per_token": cache_bytes_per_token(training.model.config),
            "memory_bytes": memory_bytes(training.runtime.device),
            "device": str(training.runtime.device),
            "fingerprint": prepared.fingerprint,
            "versions": {"minitx": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        answers = (self.answers or self.kinds.answers()) if self.kinds.is_on else None
        if answers is not None:
            known = {"loss": answers.loss, "entropy": answers.entropy, "above": answers.above.value}
            summary["tales"] = {**known, "error": answers.above.error, "accuracy": answers.shares()}
        sentences, summary["verdict"] = verdict(measure(training, answers), training.config)
        self.writer().markdown("Run/is this loss good", "\n\n".join(sentences), progress.step)
        results = {name: float(summary[name]) for name in RESULTS}
        self.writer().hyperparameters(hyperparameters(training.config), results)
        self.writer().close()
        training.run.write_json("summary.json", summary)  # last: with it the run is finished
        return summary

    def finish(self) -> None:
        """Write summary.json and name the next two commands."""
        path, summary = self.training.run.path, self.summarise()
        self.bar.close()
        if "tales" in summary:
            tales = summary["tales"]
            print(
                f"On whole tales: {tales['loss']:.3f} nats per token, {tales['above']:.3f} ± {tales['error']:.3f} "
                f"above the entropy of the language. What each head is for: {command('heads')} {path} --kinds"
            )
        print(
            f"Trained {summary['parameters']:,} parameters on {summary['tokens']:,} tokens in "
            f"{summary['seconds']:.0f} s; validation loss {summary['val_loss']:.3f} nats per token, "
            f"{summary['val_bits_per_byte']:.3f} bits per byte.\n\n"
            + "\n".join(summary["verdict"]["sentences"])
            + f"\n\nThe run is in {path}. Next:\n"
            f"  {command('generate')} {path}\n"
            f"  tensorboard --logdir {path.parent}"
        )


class NoReport(Report):
    """Of a process that is not the first: the first speaks for all."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def advance(self) -> None:
        pass

    def step(self, line: dict[str, Any], due: Due) -> None:
        pass

    def skipped(self, record: Path) -> None:
        pass

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        pass


def report_on(training: Training) -> Report:
    """The report of a run, from its first process."""
    return Report(training) if training.group.is_first else NoReport()
