"""The event writer: TensorBoard's loaders read the files back, and pictures match pixel by pixel."""

from __future__ import annotations

import html
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard import plugin_util
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from minitx.heads.scores import SCORES
from minitx.system.text import visible
from minitx.tensorboard.head_charts import ProbeLink
from minitx.tensorboard.pictures import by_word
from minitx.tensorboard.writer import METRIC_TAGS, EventWriter, verbatim
from tests.tensorboard.test_pictures import causal, decode

LABELS = ["␣The", "$a_b$", "\n", "жук", "internationalization"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's loader logs through the root logger."""
    monkeypatch.setattr(logging.getLogger("tensorboard"), "level", logging.ERROR)


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def strings(folder: Path, tag: str) -> list[list[bytes]]:
    return [list(event.tensor_proto.string_val) for event in read(folder).Tensors(tag)]


def shown(markdown: str) -> str:
    """The text that a person sees once TensorBoard has rendered `markdown`."""
    page = plugin_util.markdown_to_safe_html(markdown)
    inside = re.fullmatch(r"<p><code>(.*)</code></p>", page, re.DOTALL)
    assert inside, page
    return html.unescape(inside[1].replace("<br>", "\n")).replace("\xa0", " ")


def test_metrics_have_their_tags_and_missing_ones_leave_no_trace(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.scalars(10, {"train_loss": 3.5, "val_loss": None, "grad_norm": float("nan"), "memory_bytes": 2**31})
    writer.scalars(20, {"train_loss": 3.25})
    writer.close()
    assert points(tmp_path, METRIC_TAGS["train_loss"]) == [(10, 3.5), (20, 3.25)]
    assert set(read(tmp_path).Tags()["scalars"]) == {METRIC_TAGS["train_loss"], METRIC_TAGS["memory_bytes"]}
    assert len(set(METRIC_TAGS.values())) == len(METRIC_TAGS)


def test_what_is_flushed_can_be_read_while_the_file_is_open(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.scalars(1, {"train_loss": 1.0})
    writer.flush()
    assert points(tmp_path, METRIC_TAGS["train_loss"]) == [(1, 1.0)]
    writer.close()
    writer.close()


@pytest.mark.parametrize("loader", [EventAccumulator, PluginEventAccumulator])
def test_a_resumed_run_drops_the_steps_that_it_repeats(tmp_path: Path, loader: Any) -> None:
    first = EventWriter(tmp_path)
    for step in (100, 200, 300):
        first.scalars(step, {"train_loss": step})
        first.patterns(step, "“ab”", "ab", ["a", "b"], causal(1, 2)[None])
    first.close()
    second = EventWriter(tmp_path, start_step=201)
    second.scalars(210, {"train_loss": 210})
    second.close()
    accumulator = loader(str(tmp_path), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tag = METRIC_TAGS["train_loss"]
    events = accumulator.Scalars(tag) if loader is EventAccumulator else accumulator.Tensors(tag)
    assert [event.step for event in events] == [100, 200, 210]
    if loader is PluginEventAccumulator:  # the other one, which TensorBoard itself does not use, keeps all pictures
        assert [event.step for event in accumulator.Tensors("“ab”/layer 0")] == [100, 200]


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\n\n\n    indented  twice\n",
        "# no heading\n* no list\n1. none\n| a | b |\n|---|---|\n> quote",
        "`tick` ```fence\n```\n~~~ <b>bold</b> <script>x</script> &amp; &#42; *s* _u_ **b** $x$ [l](http://u) <http://u>",
        "日本 жук 👩‍👧 \\n \\* e\u0301",
        "",
        " a ",
    ],
)
def test_text_survives_markdown(tmp_path: Path, text: str) -> None:
    writer = EventWriter(tmp_path)
    writer.text("Sample", text, 7)
    writer.close()
    [[stored]] = strings(tmp_path, "Sample")
    assert shown(stored.decode()) == text


def test_long_lines_can_wrap() -> None:
    assert " and &nbsp;on" in verbatim("on and  on")


def test_characters_that_cannot_be_seen_are_written_as_codes() -> None:
    assert visible("a\x00\x1b[1m\r\u202e\ud800\t\n") == "a\\x00\\x1b[1m\\r\\u202e\\ud800\t\n"
    assert visible("a\n b", keep="") == "a\\n b"
    assert shown(verbatim("\x02\x03\x00")) == "\\x02\\x03\\x00"  # Python-Markdown keeps its own places with 2 and 3
    assert shown(verbatim("\tx")) == "        x"


def test_markdown_is_left_alone(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.markdown("Model card", "# Title\n\n**bold**", 0)
    writer.close()
    [[stored]] = strings(tmp_path, "Model card")
    assert "<h1>Title</h1>" in plugin_util.markdown_to_safe_html(stored.decode())


def test_hyperparameters_are_of_the_run_itself(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "name")
    values: dict[str, str | float | bool] = {"Layers": 4, "train.optimizer": "muon", "model.qk_norm": True}
    writer.hyperparameters(values, {})
    writer.scalars(50, {"val_loss": 2.0})
    assert "_hparams_/session_end_info" not in read(tmp_path / "name").summary_metadata  # it is still running
    writer.hyperparameters(values, {"cache_bytes_per_token": 512})
    writer.close()
    content = read(tmp_path / "name").summary_metadata
    start, end = (
        HParamsPluginData.FromString(content[f"_hparams_/{tag}"].plugin_data.content)
        for tag in ("session_start_info", "session_end_info")
    )
    assert start.session_start_info.group_name == "name"
    assert start.session_start_info.hparams["Layers"].number_value == 4
    assert start.session_start_info.hparams["train.optimizer"].string_value == "muon"
    assert start.session_start_info.hparams["model.qk_norm"].bool_value is True
    assert end.session_end_info.status == 1  # success
    assert points(tmp_path / "name", "Summary/cache bytes per token") == [(50, 512)]
    assert [path.name for path in tmp_path.iterdir()] == ["name"]  # no run of its own


def test_the_first_run_does_not_fix_the_columns_of_the_hparams_tab(tmp_path: Path) -> None:
    """With an experiment summary TensorBoard shows the columns of one run, and not those in which runs differ."""
    writer = EventWriter(tmp_path)
    writer.hyperparameters({"Layers": 4}, {"seconds": 1.0})
    writer.close()
    assert "_hparams_/experiment" not in read(tmp_path).summary_metadata


def test_losses_and_speed_are_the_metrics_that_the_hparams_tab_shows_first(tmp_path: Path) -> None:
    """It shows the first five tags by name."""
    writer = EventWriter(tmp_path)
    writer.scalars(1, {name: 1.0 for name in METRIC_TAGS if name != "above_entropy"})
    writer.results(1, {"parameters": 1.0, "seconds": 1.0})
    writer.head_scores(
        1, {name: np.ones((2, 2)) for name in SCORES}, {}, [ProbeLink("“a b”", "b", np.ones((2, 2)), 0.5)]
    )
    writer.close()
    shown = sorted(read(tmp_path).Tags()["scalars"])[:5]
    assert shown == [
        *(f"Loss/{of}" for of in ("best validation", "train", "validation", "validation bits per byte")),
        METRIC_TAGS["tokens_per_second"],
    ]


@pytest.mark.parametrize("each_head", [False, True])
def test_every_score_has_its_charts(tmp_path: Path, each_head: bool) -> None:
    scores = {name: np.arange(24, dtype=np.float64).reshape(2, 12) for name in SCORES}
    scores["induction"] = np.full((2, 12), np.nan)
    links = [ProbeLink("“The (cat)…”", "sat → [cat]", scores["entropy"] / 24, 0.125)]
    writer = EventWriter(tmp_path, each_head=each_head)
    for step in (100, 200):
        writer.head_scores(step, scores, {"previous_token": 0.25, "induction": float("nan")}, links)
    writer.close()
    accumulator = read(tmp_path)
    tags = accumulator.Tags()["scalars"]
    group = "heads: previous token"
    assert points(tmp_path, f"{group}/layer 1, highest") == [(100, 23), (200, 23)]
    assert points(tmp_path, f"{group}/layer 1, mean") == [(100, 17.5), (200, 17.5)]
    assert points(tmp_path, f"{group}/chance") == [(100, 0.25), (200, 0.25)]
    assert points(tmp_path, "links in “The (cat)…”/sat → [cat], highest head")[0][1] == pytest.approx(23 / 24)
    assert points(tmp_path, "links in “The (cat)…”/sat → [cat], chance")[0] == (100, 0.125)
    assert not [tag for tag in tags if "induction" in tag]
    metadata = accumulator.SummaryMetadata("heads: entropy/layer 0, highest")
    assert SCORES["entropy"].description in metadata.summary_description
    assert (
        ("layer 1 head 11/previous token" in tags) == ("layer 0 head 3/“The (cat)…” sat → [cat]" in tags) == each_head
    )
    [[stored]] = strings(tmp_path, "custom_scalars__config__")
    charts = {chart.title: chart for category in Layout.FromString(stored).category for chart in category.chart}

    def matched(title: str) -> list[str]:
        return sorted(tag for tag in tags if any(re.match(pattern, tag) for pattern in charts[title].multiline.tag))

    assert matched("previous token") == [f"{group}/chance", *(f"{group}/layer {layer}, highest" for layer in range(2))]
    assert matched("“The (cat)…”") == ["links in “The (cat)…”/sat → [cat], highest head"]
    assert ("layer 1: previous token" in charts) == each_head
    if each_head:
        heads = [f"layer 1 head {head}/previous token" for head in range(12)]
        assert matched("layer 1: previous token") == sorted([f"{group}/chance", *heads])


def test_pictures_arrive_with_tag_step_size_and_text(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    patterns = np.stack([causal(3, 5), causal(3, 5)])
    for step in (0, 100):
        writer.patterns(step, "“The”", "The$a_b$\nжук", LABELS, patterns)
    writer.close()
    accumulator = read(tmp_path)
    assert {tag for tag in accumulator.Tags()["tensors"] if "/" in tag} == {"“The”/layer 0", "“The”/layer 1"}
    assert [event.step for event in accumulator.Tensors("“The”/layer 1")] == [0, 100]
    (width, height, png), _ = strings(tmp_path, "“The”/layer 1")
    assert decode(png).shape == (int(height), int(width))
    metadata = accumulator.SummaryMetadata("“The”/layer 1")
    assert metadata.plugin_data.plugin_name == "images"
    assert shown(metadata.summary_description) == "The$a_b$\nжук"


def test_a_picture_can_be_of_words(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.patterns(1, "“a”", "a", ["␣a", "b", "␣c"], causal(2, 3)[None], words=[0, 2])
    writer.patterns(1, "“b”", "b", ["ab", "c"], by_word(["␣a", "b", "␣c"], causal(2, 3)[None], [0, 2])[1])
    writer.close()
    assert strings(tmp_path, "“a”/layer 0")[0][:2] == strings(tmp_path, "“b”/layer 0")[0][:2]  # width and height


def test_shapes_that_disagree_are_refused(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    with pytest.raises(ValueError, match="of 2 labels"):
        writer.patterns(0, "“ab”", "ab", ["a", "b"], causal(1, 3)[None])
    writer.close()


def test_importing_and_writing_need_no_torch_and_drawing_no_pyplot(tmp_path: Path) -> None:
    code = f"""
import sys
import minitx.tensorboard.writer, minitx.heads.scores
loaded = {{"torch", "tensorflow", "matplotlib", "tensorboard", "PIL"}} & set(sys.modules)
assert not loaded, loaded
import numpy as np
from pathlib import Path
writer = minitx.tensorboard.writer.EventWriter(Path({str(tmp_path)!r}))
writer.scalars(1, {{"train_loss": 1.0}})
writer.text("a", "b", 1)
writer.hyperparameters({{"a": 1}}, {{"b": 1.0}})
writer.head_scores(1, {{"induction": np.ones((1, 1))}}, {{}})
writer.patterns(1, "“a”", "a", ["a"], np.ones((1, 1, 1, 1)))
writer.close()
loaded = {{"torch", "tensorflow", "matplotlib.pyplot"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
