"""Writes what TensorBoard shows of a run: curves, texts, hyperparameters, head scores, pictures of patterns.

An `EventWriter` appends TensorBoard's own protocol buffers to one file in the run folder, in the caller's thread. It
takes numbers and numpy arrays, and imports neither torch nor tensorflow.
"""

import itertools
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.data.tales.tale import KINDS
from minitx.heads.scores import IMPORTANCE, SCORES
from minitx.system.files import flush_to_disk, with_filename
from minitx.system.text import visible

Floats = NDArray[np.floating[Any]]

METRIC_TAGS = {
    "train_loss": "Loss/train",
    "val_loss": "Loss/validation",
    "val_bits_per_byte": "Loss/validation bits per byte",
    "above_entropy": "Loss/above the entropy of the language",
    "learning_rate": "Optimizer/learning rate",
    "grad_norm": "Optimizer/gradient norm",
    "tokens_per_second": "Speed/tokens per second",
    "memory_bytes": "Speed/memory in bytes",
}
"""Metric of a run → its tag. TensorBoard sorts capitals first, so these come before the many head scores."""
KIND = "tales_{}"
"""Name of the score of heads for a kind of relationship."""
DESCRIPTIONS = {
    **{KIND.format(kind): f"attention to the word that decides: {meaning}" for kind, meaning in KINDS.items()},
    **{name: score.description for name, score in SCORES.items()},
    "importance": IMPORTANCE,
    "induction_on_repeats": f"{SCORES['induction'].description}, on random tokens that come twice",
}
"""Score of heads → what it means."""
LINK_DESCRIPTION = "attention along the link {} of a probe"

_file_number = itertools.count()


class EventWriter:
    """Writes an event file to `folder`. Only after `flush` is everything on disk.

    From `start_step` on, TensorBoard drops the events of earlier files, so that a resumed run replaces them. (Its fast
    loader drops a tag's old events once the tag is written again.)
    """

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a run in the order of their names, so the name starts with the time.
        self._file = folder / f"events.out.tfevents.{time.time():017.6f}.{os.getpid()}.{next(_file_number)}"
        self._writer = RecordWriter(self._file.open("xb"))
        self._frames: dict[int, Any] = {}  # probe → Frame, whose module imports matplotlib
        self._name = folder.resolve().name
        self._last_step = max(0, start_step - 1)  # step at which results are logged if no training step is left
        self._scores_described = False
        self._record(file_version="brain.Event:2")
        # TensorBoard's Python loader recognises a restart only by a second session start.
        self._record(step=start_step, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log metrics by their name in `METRIC_TAGS`; None and NaN are left out."""
        self._add(step, [_scalar(METRIC_TAGS[name], value) for name, value in values.items()])

    def accuracy(self, step: int, by_kind: Mapping[str, float]) -> None:
        """Log the share of right answers for each kind of relationship in the tales, a chart each."""
        self._add(step, [_scalar(f"Tales/{kind}", value, KINDS[kind]) for kind, value in by_kind.items()])

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a text for the Text tab, shown as it is: no character of it is read as Markdown."""
        self.markdown(tag, verbatim(text), step)

    def markdown(self, tag: str, text: str, step: int) -> None:
        """Log a text that the Text tab renders as Markdown."""
        from tensorboard.plugins.text.metadata import create_summary_metadata

        # A scalar string: TensorBoard makes a table of anything with dimensions.
        self._add(step, [_tensor(tag, text.encode(), create_summary_metadata("", ""))])

    def hyperparameters(self, flat: Mapping[str, str | float | bool], metrics: Mapping[str, float]) -> None:
        """Log the run's row in the HParams tab.

        `flat` maps dotted names to values. `metrics` are `results`. The first call fixes the columns: results, losses
        and speed. A NaN leaves its cell empty for a second call at the end.
        """
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

        columns = [METRIC_TAGS[name] for name in ("val_loss", "val_bits_per_byte", "train_loss", "tokens_per_second")]
        experiment = summary_v2.hparams_config_pb(
            hparams=[summary_v2.HParam(name) for name in flat],
            metrics=[summary_v2.Metric(tag) for tag in [*columns, *map(_result_tag, metrics)]],
        )
        start = summary_v2.hparams_pb(dict(flat), trial_id=self._name)  # one row a run, even if settings are equal
        summaries = [*experiment.value, *start.value]
        if not all(map(math.isnan, metrics.values())):
            end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
            content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
            summaries.append(_tensor(metadata.SESSION_END_INFO_TAG, [], content))
        self._add(self._last_step, summaries)
        self.results(self._last_step, metrics)

    def results(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log results without a curve, such as the best loss, as the scalars `Result/NAME`."""
        self._add(step, [_scalar(_result_tag(name), value) for name, value in metrics.items()])

    def head_scores(self, step: int, scores: Mapping[str, Floats], chance: Mapping[str, float] | None) -> None:
        """Log arrays (layer, head) of scores or links, by name, under `layer L head H/NAME`; NaN is left out.

        `chance` is the score of uniform attention, logged under `uniform attention/NAME`. In the Custom Scalars tab
        every score gets one chart a layer, which compares the heads.
        """
        summaries = []
        if not self._scores_described:  # TensorBoard reads descriptions and layout only once
            summaries.append(_layout({name: len(values) for name, values in scores.items()}))
        for name, values in scores.items():
            title = name.replace("_", " ")
            description = "" if self._scores_described else DESCRIPTIONS.get(name, LINK_DESCRIPTION.format(name))
            for (layer, head), value in np.ndenumerate(values):
                summaries.append(_scalar(f"layer {layer} head {head}/{title}", float(value), description))
            summaries.append(_scalar(f"uniform attention/{title}", (chance or {}).get(name)))
        self._scores_described = True
        self._add(step, summaries)

    def patterns(self, step: int, probe_index: int, labels: list[str], patterns: Floats) -> None:
        """Log one picture a layer of the patterns (layer, head, query, key) of all its heads.

        `labels` are the probe's tokens, the same at every step. Raises ValueError if the shapes disagree.
        """
        from tensorboard.plugins.image.metadata import create_summary_metadata

        from minitx.tensorboard.pictures import Frame

        layers, heads, *square = patterns.shape
        if square != [len(labels), len(labels)]:
            raise ValueError(f"patterns {patterns.shape} are not (layer, head, query, key) of {len(labels)} labels")
        text = "".join(labels).replace("␣", " ").strip()
        if probe_index not in self._frames:
            self._frames[probe_index] = Frame(labels, heads, f"probe {probe_index}: {text}")
        frame = self._frames[probe_index]
        size = [str(length).encode() for length in reversed(frame.base.shape)]
        metadata = create_summary_metadata("", verbatim(text))
        pictures = [[*size, frame.picture(layer, step, patterns[layer])] for layer in range(layers)]
        tags = [f"probe {probe_index}/layer {layer}" for layer in range(layers)]
        self._add(step, [_tensor(tag, picture, metadata) for tag, picture in zip(tags, pictures, strict=True)])

    def flush(self) -> None:
        """Hand everything logged so far to the operating system, where TensorBoard sees it."""
        with with_filename(self._file):
            self._writer.flush()

    def close(self) -> None:
        """Flush to disk and close; may be called twice."""
        with with_filename(self._file):
            if not self._writer.closed:
                self._writer.close()
                flush_to_disk(self._file)

    def _add(self, step: int, summaries: list[Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._last_step = max(self._last_step, step)
        if values := [value for value in summaries if value is not None]:
            self._record(step=step, summary=Summary(value=values))

    def _record(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with with_filename(self._file):
            self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())


def verbatim(text: str) -> str:
    """Markdown that shows `visible(text)` as it is, with every line and space.

    TensorBoard does not wrap long lines of a code block, so this is inline code with special characters as entities.
    """
    plain = re.sub(r"[!-/:-@\[-`{-~]", lambda match: f"&#{ord(match[0])};", visible(text.expandtabs()))
    lines = [re.sub(r"^ | $|(?<= ) ", "&nbsp;", line) for line in plain.split("\n")]
    return f"<code>{'<br>'.join(lines)}</code>"


def _result_tag(name: str) -> str:
    return f"Result/{name.replace('_', ' ')}"


def _scalar(tag: str, value: float | None, description: str = "") -> Any:
    """The summary of a number; None for None and NaN."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    if value is None or math.isnan(value):
        return None
    if not description:
        return Summary.Value(tag=tag, simple_value=value)
    metadata = create_summary_metadata("", description)
    metadata.data_class = DATA_CLASS_SCALAR  # without it TensorBoard's fast loader drops the description
    return Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def _tensor(tag: str, strings: bytes | list[bytes], metadata: Any) -> Any:
    """The summary of one string, or of several."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    return Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(strings, dtype=np.object_))


def _layout(layers: Mapping[str, int]) -> Any:
    """Charts of the Custom Scalars tab, for score name → number of layers. Tags are patterns, which fit any run."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
    from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, create_summary_metadata

    def chart(title: str, *tags: str) -> Chart:
        return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$" for tag in tags]))

    losses = chart("training and validation", METRIC_TAGS["train_loss"], METRIC_TAGS["val_loss"])
    categories = [Category(title="Loss", chart=[losses])]
    for name, count in layers.items():
        title = name.replace("_", " ")
        tag = re.escape(title)
        charts = [
            chart(f"layer {layer}: {title}", rf"layer {layer} head \d+/{tag}", f"uniform attention/{tag}")
            for layer in range(count)
        ]
        categories.append(Category(title=f"Heads: {title}", chart=charts))
    layout = Layout(category=categories).SerializeToString()
    return _tensor(CONFIG_SUMMARY_TAG, layout, create_summary_metadata())
