"""Writes what TensorBoard shows of a run: curves, texts, hyperparameters, head scores, pictures of patterns.

An `EventWriter` appends TensorBoard's own protocol buffers to one file in the run folder, in the caller's thread. It
takes numbers and numpy arrays, and imports neither torch nor tensorflow.
"""

import itertools
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.data.tales.tale import KINDS
from minitx.system.files import flush_to_disk, with_filename
from minitx.system.text import visible
from minitx.tensorboard.head_charts import ProbeLink, head_points, layout, spoken, summary_points

Floats = NDArray[np.floating[Any]]

METRIC_TAGS = {
    "best_val_loss": "Loss/best validation",
    "train_loss": "Loss/train",
    "val_loss": "Loss/validation",
    "val_bits_per_byte": "Loss/validation bits per byte",
    "above_entropy": "Loss/above the entropy of the language",
    "tokens_per_second": "Speed/tokens per second",
    "learning_rate": "Training/learning rate",
    "grad_norm": "Training/gradient norm",
    "memory_bytes": "Training/memory in bytes",
}
"""Metric of a run → its tag. TensorBoard sorts tags, capitals first. The HParams tab shows the first five of them: so
losses come first, then speed."""

_file_number = itertools.count()


class EventWriter:
    """Writes an event file to `folder`. Only after `flush` is everything on disk.

    From `start_step` on, TensorBoard drops the events of earlier files, so that a resumed run replaces them. (Its fast
    loader drops a tag's old events once the tag is written again.) `each_head`: whether each head gets its own charts.
    """

    def __init__(self, folder: Path, start_step: int = 0, each_head: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a run in the order of their names, so the name starts with the time.
        self._file = folder / f"events.out.tfevents.{time.time():017.6f}.{os.getpid()}.{next(_file_number)}"
        self._writer = RecordWriter(self._file.open("xb"))
        self._frames: dict[str, Any] = {}  # probe → Frame, whose module imports matplotlib
        self._each_head = each_head
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

    def hyperparameters(self, values: Mapping[str, str | float | bool], metrics: Mapping[str, float]) -> None:
        """Log the run's row in the HParams tab; call it again at the end, with `metrics`, which are `results`.

        TensorBoard takes the columns from all runs: first those in which runs differ, then the others by name.
        """
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

        # The name makes one row a run, even where settings are equal.
        summaries = list(summary_v2.hparams_pb(dict(values), trial_id=self._name).value)
        if metrics:
            end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
            content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
            summaries.append(_tensor(metadata.SESSION_END_INFO_TAG, [], content))
        self._add(self._last_step, summaries)
        self.results(self._last_step, metrics)

    def results(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log results without a curve, such as the number of parameters, as the scalars `Summary/NAME`."""
        self._add(step, [_scalar(f"Summary/{spoken(name)}", value) for name, value in metrics.items()])

    def head_scores(
        self, step: int, scores: Mapping[str, Floats], chance: Mapping[str, float], links: Sequence[ProbeLink] = ()
    ) -> None:
        """Log arrays (layer, head) of scores by name, and links: a summary of each layer, or each head too.

        `chance` is the score of a head that spreads its attention evenly; NaN is left out.
        """
        summaries = []
        if not self._scores_described:  # TensorBoard reads descriptions and layout only once
            from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, create_summary_metadata

            losses = [METRIC_TAGS["train_loss"], METRIC_TAGS["val_loss"]]
            charts = layout(losses, scores, links, self._each_head).SerializeToString()
            summaries.append(_tensor(CONFIG_SUMMARY_TAG, charts, create_summary_metadata()))
        points = [*summary_points(scores, chance, links), *(head_points(scores, links) if self._each_head else ())]
        for tag, value, description in points:
            summaries.append(_scalar(tag, value, "" if self._scores_described else description))
        self._scores_described = True
        self._add(step, summaries)

    def patterns(
        self,
        step: int,
        title: str,
        text: str,
        labels: Sequence[str],
        patterns: Floats,
        words: Sequence[int] | None = None,
    ) -> None:
        """Log one picture a layer of the patterns (layer, head, query, key) of all its heads.

        `title`, of `probe_titles`, names the pictures; `text` is the whole probe. `labels` are of its tokens, the same
        at every step. `words`, the first token of each word, makes the pictures of words. Raises ValueError if the
        shapes disagree.
        """
        from tensorboard.plugins.image.metadata import create_summary_metadata

        from minitx.tensorboard.pictures import Frame, by_word

        layers, heads, *square = patterns.shape
        if square != [len(labels), len(labels)]:
            raise ValueError(f"patterns {patterns.shape} are not (layer, head, query, key) of {len(labels)} labels")
        if words is not None:
            labels, patterns = by_word(labels, patterns, words)
        if title not in self._frames:
            self._frames[title] = Frame(labels, heads, text)
        frame = self._frames[title]
        size = [str(length).encode() for length in reversed(frame.base.shape)]
        metadata = create_summary_metadata("", verbatim(text))
        pictures = [[*size, frame.picture(layer, step, patterns[layer])] for layer in range(layers)]
        tags = [f"{title}/layer {layer}" for layer in range(layers)]
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
