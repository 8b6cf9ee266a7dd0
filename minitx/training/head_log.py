"""Log the heads of a model while it trains: a snapshot for the Attention tab, curves and pictures, heads.jsonl."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minitx.heads import snapshots
from minitx.heads.links import measure_links, uniform
from minitx.heads.places import run_probes
from minitx.heads.view import View, view_probes
from minitx.run.logs import HEADS_FILE
from minitx.tensorboard.head_charts import ProbeLink, probe_titles
from minitx.tensorboard.writer import EventWriter
from minitx.training.kind_log import KindLog
from minitx.training.state import Due, Training


def log_heads(training: Training, due: Due, kinds: KindLog, writer: Callable[[], EventWriter]) -> None:
    """Log what every head does on the run's probes, and its scores on validation text and on tales."""
    prepared, probes = training.prepared, run_probes(training.config)
    precision = training.runtime.autocast
    view = view_probes(training.model, prepared.tokenizer, probes, prepared.val, precision, repeated_loss=due.heads)
    if kinds.is_on:
        scores, chance = kinds.scores()
        view = replace(view, scores=view.scores | scores, chance=view.chance | chance)
    if due.snapshot and view.probes:
        run = training.run.path
        snapshots.write(run, training.step, view.snapshot(training.step, snapshots.run_id(run) or ""))
    if due.heads:
        log_scores(training, view, writer())


def log_scores(training: Training, view: View, writer: EventWriter) -> None:
    """Log scores, links and patterns for TensorBoard's own tabs, and as a line of heads.jsonl."""
    step, autocast, val = training.step, training.runtime.autocast, training.prepared.val
    line: dict[str, Any] = {
        "step": step,
        "scores": {name: values.tolist() for name, values in view.scores.items()},
        "chance": view.chance,
        "links": [],
        "repeated_loss": [view.repeats.first_loss, view.repeats.second_loss],
    }
    links = []
    titles = probe_titles([probe.text for probe in view.probes])
    for i, (title, probe) in enumerate(zip(titles, view.probes, strict=True)):
        writer.patterns(step, title, probe.text, probe.tokens, probe.patterns, words=probe.words)
        with autocast():
            measured = measure_links(training.model, probe.links, probe.patterns, val)
        for link in measured:
            links.append(ProbeLink(title, link.link.name, link.attention, uniform(link.link)))
            figures = {key: getattr(link, key).tolist() for key in ("attention", "chance", "spread")}
            line["links"].append({"probe": i, "name": link.link.name, **figures})
    writer.head_scores(step, view.scores, view.chance, links)
    training.run.append_metrics(line, HEADS_FILE)
    writer.flush()
