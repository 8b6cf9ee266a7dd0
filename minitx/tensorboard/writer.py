"""What TensorBoard gets from a run: curves, texts, hyperparameters, head scores, and pictures of attention patterns.

An `EventWriter` appends events to one file in the run folder, in the caller's thread and with TensorBoard's own
protocol
buffers: no torch, and no tensorflow where that happens to be installed. Numbers and numpy arrays go in.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from minitx.heads.scores import IMPORTANCE, SCORES
from minitx.system.faults import with_filename
from minitx.system.text import visible
from minitx.tensorboard.pictures import Canvas

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

METRIC_TAGS = {
    "train_loss": "Loss/train",
    "val_loss": "Loss/validation",
    "val_bits_per_byte": "Loss/validation bits per byte",
    "learning_rate": "Optimizer/learning rate",
    "grad_norm": "Optimizer/gradient norm",
    "tokens_per_second": "Speed/tokens per second",
    "memory_bytes": "Speed/memory in bytes",
}
"""Metric of a run → its tag. TensorBoard sorts capitals first, so these come before the many head scores."""

_file_number = itertools.count()


class EventWriter:
    """Writes to `folder` what TensorBoard shows of a run.

    `start_step` is the first step that will be written: when a run is resumed, TensorBoard drops what an earlier file
    holds from there on (its fast loader does so for each tag once that tag is written again). Nothing is sure to be on
    disk before `flush`.
    """

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a run in the order of their names, so the name starts with the time.
        name = f"events.out.tfevents.{time.time():017.6f}.{os.getpid()}.{next(_file_number)}"
        self._file = folder / name
        self._writer = RecordWriter(self._file.open("xb"))
        self._canvases: dict[int, Canvas] = {}
        self._name = folder.resolve().name
        self._last_step = max(0, start_step - 1)  # of which results are told where nothing is left to do
        self._scores_described = False
        self._record(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard's Python loader takes a session's start for a restart only if it has seen one before.
        start = SessionLog(status=SessionLog.START)
        self._record(Event(wall_time=time.time(), step=start_step, session_log=start))
        self.flush()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Metrics by their name in `METRIC_TAGS`; None and NaN are left out."""
        self._add(step, [_scalar(METRIC_TAGS[name], value) for name, value in values.items() if _is_number(value)])

    def text(self, tag: str, text: str, step: int) -> None:
        """A text shown as it is: in TensorBoard's Markdown no character of it means anything."""
        self.markdown(tag, verbatim(text), step)

    def markdown(self, tag: str, text: str, step: int) -> None:
        """A text rendered as Markdown by TensorBoard's Text tab."""
        from tensorboard.plugins.text.metadata import create_summary_metadata

        # A scalar string: anything with dimensions is put into a table.
        self._add(step, [_tensor(tag, [text.encode()], create_summary_metadata("", ""), shape=())])

    def hyperparameters(self, flat: Mapping[str, str | float | bool], metrics: Mapping[str, float]) -> None:
        """The run's row in TensorBoard's HParams tab.

        `flat` maps dotted names to values. `metrics` are results that are no curve, such as the best loss: each is
        written as the scalar `Result/NAME`; a NaN declares the column and leaves the cell empty. Columns are fixed by
        the first call, the validation and training curves always among them; call again at the end with the results.
        """
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

        results = {_result_tag(name): value for name, value in metrics.items()}
        columns = [METRIC_TAGS[name] for name in ("val_loss", "val_bits_per_byte", "train_loss", "tokens_per_second")]
        experiment = summary_v2.hparams_config_pb(
            hparams=[summary_v2.HParam(name) for name in flat],
            metrics=[summary_v2.Metric(tag) for tag in [*columns, *results]],
        )
        start = summary_v2.hparams_pb(dict(flat), trial_id=self._name)  # one row for each run, even of equal settings
        summaries = [*experiment.value, *start.value]
        if any(map(_is_number, results.values())):
            end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
            content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
            summaries.append(_tensor(metadata.SESSION_END_INFO_TAG, [], content, shape=(0,)))
        summaries += [_scalar(tag, value) for tag, value in results.items() if _is_number(value)]
        self._add(self._last_step, summaries)

    def results(self, step: int, metrics: Mapping[str, float]) -> None:
        """Results that are no curve, each as the scalar `Result/NAME`."""
        self._add(step, [_scalar(_result_tag(name), value) for name, value in metrics.items() if _is_number(value)])

    def head_scores(
        self, step: int, scores: Mapping[str, NDArray[np.floating[Any]]], chance: Mapping[str, float] | None
    ) -> None:
        """Scores by their name in `SCORES`, or links, (layer, head), under `layer L head H/NAME`; NaN is left out.

        `chance`, what uniform attention scores, goes under `uniform attention/NAME`. The Custom Scalars tab gets, for
        every score and layer, one chart that compares the heads.
        """
        summaries = []
        if not self._scores_described:  # TensorBoard reads descriptions and layout only once
            summaries.append(_layout({name: len(values) for name, values in scores.items()}))
        for name, values in scores.items():
            title = name.replace("_", " ")
            description = "" if self._scores_described else _description(name)
            for (layer, head), value in np.ndenumerate(values):
                if _is_number(value):
                    summaries.append(_scalar(f"layer {layer} head {head}/{title}", value, description))
            if chance is not None and _is_number(chance.get(name)):
                summaries.append(_scalar(f"uniform attention/{title}", chance[name]))
        self._scores_described = True
        self._add(step, summaries)

    def patterns(self, step: int, probe_index: int, labels: list[str], patterns: NDArray[np.floating[Any]]) -> None:
        """For every layer, a picture of the patterns (layer, head, query, key) of all its heads.

        `labels` are the probe's tokens, the same at every step. Raises ValueError where the shapes disagree.
        """
        from tensorboard.plugins.image.metadata import create_summary_metadata

        layers, heads, *square = patterns.shape
        if square != [len(labels), len(labels)]:
            raise ValueError(f"patterns {patterns.shape} are not (layer, head, query, key) of {len(labels)} labels")
        canvas = self._canvases.get(probe_index)
        if canvas is None or (canvas.labels, canvas.n_head) != (labels, heads):
            canvas = self._canvases[probe_index] = Canvas(labels, heads)
        text = "".join(labels).replace("␣", " ").strip()
        summaries = []
        for layer in range(layers):
            title = f"layer {layer}  ·  step {step}  ·  probe {probe_index}: {text}"
            png = canvas.picture(title, patterns[layer])
            size = [str(length).encode() for length in reversed(canvas.shape)]
            metadata = create_summary_metadata("", verbatim(text))
            summaries.append(_tensor(f"probe {probe_index}/layer {layer}", [*size, png], metadata, shape=(3,)))
        self._add(step, summaries)

    def flush(self) -> None:
        """Hand everything written so far to the operating system, where TensorBoard sees it."""
        with with_filename(self._file):
            self._writer.flush()

    def close(self) -> None:
        """Flush and close; may be called twice."""
        with with_filename(self._file):
            if not self._writer.closed:
                self._writer.close()

    def _add(self, step: int, summaries: list[Summary.Value]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._last_step = max(self._last_step, step)
        if summaries:
            self._record(Event(wall_time=time.time(), step=step, summary=Summary(value=summaries)))

    def _record(self, event: Any) -> None:
        with with_filename(self._file):
            self._writer.write(event.SerializeToString())


def verbatim(text: str) -> str:
    """Markdown that shows `text` as it is, every line and space of it, with `visible`.

    Not a code block, whose long lines TensorBoard does not wrap: inline code with special characters as entities.
    """
    plain = re.sub(r"[!-/:-@\[-`{-~]", lambda match: f"&#{ord(match[0])};", visible(text.expandtabs()))
    lines = [re.sub(r"^ | $|(?<= ) ", "&nbsp;", line) for line in plain.split("\n")]
    return f"<code>{'<br>'.join(lines)}</code>"


def _result_tag(name: str) -> str:
    return f"Result/{name.replace('_', ' ')}"


def _description(name: str) -> str:
    if name == "induction_on_repeats":
        return f"{SCORES['induction'].description}, on random tokens that come twice"
    if name == "importance":
        return IMPORTANCE
    return SCORES[name].description if name in SCORES else f"attention along the link {name} of a probe"


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _scalar(tag: str, value: float, description: str = "") -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    if not description:
        return Summary.Value(tag=tag, simple_value=value)
    metadata = create_summary_metadata("", description)
    metadata.data_class = DATA_CLASS_SCALAR  # without it TensorBoard's fast loader drops the description
    return Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def _tensor(tag: str, strings: list[bytes], metadata: SummaryMetadata, shape: tuple[int, ...]) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    dimensions = TensorShapeProto(dim=[TensorShapeProto.Dim(size=length) for length in shape])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=dimensions, string_val=strings)
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _layout(layers: Mapping[str, int]) -> Summary.Value:
    """The Custom Scalars tab: score name → number of layers. Tags are patterns, so runs of other sizes fit in too."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
    from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, create_summary_metadata

    def chart(title: str, tags: list[str]) -> Chart:
        return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$" for tag in tags]))

    losses = [METRIC_TAGS["train_loss"], METRIC_TAGS["val_loss"]]
    categories = [Category(title="Loss", chart=[chart("training and validation", losses)])]
    for name, count in layers.items():
        title = name.replace("_", " ")
        charts = [
            chart(
                f"layer {layer}: {title}",
                [rf"layer {layer} head \d+/{re.escape(title)}", f"uniform attention/{re.escape(title)}"],
            )
            for layer in range(count)
        ]
        categories.append(Category(title=f"Heads: {title}", chart=charts))
    layout = Layout(category=categories).SerializeToString()
    return _tensor(CONFIG_SUMMARY_TAG, [layout], create_summary_metadata(), shape=())
