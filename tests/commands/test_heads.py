"""The command `minitx heads` on a small hand-made run: its forms of output and its error messages."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

from minitx.__main__ import main
from minitx.config import LogConfig
from minitx.config.probes import ProbeSetting
from minitx.data.prepare import prepare
from minitx.data.tales.language import tales
from minitx.heads import places
from minitx.heads.record import patterns
from minitx.heads.scores import SCORES
from minitx.heads.snapshots import read_header
from minitx.run import checkpoints
from minitx.run.folder import Run
from tests.heads.test_snapshots import read_patterns
from tests.small import small_config, small_model
from tests.tensorboard.browser import Page, chromium, needs_browser


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a checkpoint of random weights on the text of `small_config`."""
    config = small_config(tmp_path)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
    checkpoints.save(run.path, small_model(prepared.tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    return run.path


def test_text_json_and_picture(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(run), "--picture", str(tmp_path / "heads.png")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{run}, step-000003, on its validation text") and "unclassified" in out
    assert "too few to trust a role" not in out
    assert (tmp_path / "heads.png").stat().st_size > 10_000 and "heads.png" in err
    assert main(["heads", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] > 1000 and len(found["heads"]) == 4


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The progress bars that the command makes, as on a terminal."""
    bars: list[Any] = []

    def new_bar(**settings: Any) -> Any:
        bars.append(tqdm(**settings | {"disable": False}))
        return bars[-1]

    monkeypatch.setattr("tqdm.tqdm", new_bar)
    return bars


@pytest.mark.parametrize("options", [[], ["--no_ablation"], ["--output_projection"]])
def test_the_progress_bar_is_full_when_the_work_is_done(options: list[str], run: Path, bars: list[Any]) -> None:
    assert main(["heads", str(run), "--text", "the cat sat", *options]) == 0
    (bar,) = bars
    assert bar.n == bar.total > 0


def test_a_given_text_is_measured_instead(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("the cat sat on a mat. null")
    answers = []
    for option in (["--text", "the cat sat on a mat. null"], ["--text_file", str(tmp_path / "a.txt")]):
        assert main(["heads", str(run), *option, "--json", "--no_ablation"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] and answers[0]["tokens"] == 27
    assert main(["heads", str(run), "--text", "null", "--json", "--no_ablation"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 5
    assert main(["heads", str(run), "--text", "null", "--no_ablation"]) == 0
    assert "on 5 tokens (too few to trust a role): " in capsys.readouterr().out


def test_probes_and_history(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(run), "--probes"]) == 2
    assert "have no links" in capsys.readouterr().err
    config = Run(run).config()
    links = [{"from": "mat", "to": "cat"}, {"from": "mat", "to": "sat"}]
    probe: ProbeSetting = {"text": "the cat sat on a mat.", "links": links}
    Run(run).save_config(dataclasses.replace(config, log=LogConfig(probes=[probe, "rain"])))
    assert main(["heads", str(run), "--probes"]) == 0
    assert "mat → cat" in capsys.readouterr().out
    short = dataclasses.replace(config.model, context_length=8)
    Run(run).save_config(dataclasses.replace(config, model=short, log=LogConfig(probes=[probe, "rain"])))
    assert main(["heads", str(run), "--probes"]) == 2
    assert f"No link of {run}'s probes can be measured" in capsys.readouterr().err
    Run(run).save_config(dataclasses.replace(config, log=LogConfig(probes=[probe, "rain"])))
    assert main(["heads", str(run), "--probes", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["probes"]
    assert [link["distance"] for link in found["links"]] == [11, 7]
    assert main(["heads", str(run), "--history", str(tmp_path / "a.png")]) == 2
    assert "has no lines in heads.jsonl" in capsys.readouterr().err
    scores, chance = {"induction": [[0.5]], "importance": [[0.02]]}, {"induction": 0.1, "importance": None}
    line = {"scores": scores, "chance": chance, "repeated_loss": [1.0, 0.5]}
    Run(run).append_metrics({"step": 1, **line}, "heads.jsonl")
    assert main(["heads", str(run), "--history", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.fixture
def long_run(run: Path) -> Path:
    """The run with a context that tales fit into."""
    config = Run(run).config()
    wider = dataclasses.replace(config.model, context_length=1024)
    Run(run).save_config(dataclasses.replace(config, model=wider))
    return run


def test_kinds_as_text_json_and_picture(
    long_run: Path, tmp_path: Path, bars: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heads", str(long_run), "--kinds", "--tales", "12", "--picture", str(tmp_path / "kinds.png")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{long_run}, step-000003, on 12 held-out tales\n")
    assert "has not learned this language" in out and "\nholder " in out and "100% of the heads are named after" in out
    assert (tmp_path / "kinds.png").stat().st_size > 10_000 and "kinds.png" in err
    assert bars[0].n == bars[0].total == 3 * 12
    assert main(["heads", str(long_run), "--kinds", "--tales", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tales"], found["measured_tales"], found["seed"]) == (12, 12, 1) and len(found["heads"]) == 4


@pytest.mark.parametrize(("source", "data_seed", "seed"), [("tales", 5, 5), ("tales", None, 7), ("text", 5, 1)])
def test_kinds_are_measured_on_the_tales_that_a_run_holds_out(
    source: str,
    data_seed: int | None,
    seed: int,
    long_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = Run(long_run).config()
    told: list[object] = []
    data = dataclasses.replace(config.data, source=source if source == "tales" else config.data.source, seed=data_seed)
    Run(long_run).save_config(dataclasses.replace(config, data=data, seed=7))
    real = tales

    def record(*given: Any) -> Any:
        told.append(given)
        return real(*given)

    monkeypatch.setattr(places, "tales", record)
    assert main(["heads", str(long_run), "--kinds", "--tales", "2"]) == 0
    assert told == [("validation", seed)]
    assert ("has not learned this language" in capsys.readouterr().out) == (source != "tales")


def test_the_table_of_a_run_that_learned_tales_says_what_heads_serve_there(
    long_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said "unclassified" of heads that --kinds has a name for."""
    config = Run(long_run).config()
    monkeypatch.setattr("minitx.commands.heads.TALES", 12)
    monkeypatch.setattr("minitx.run.text.validation_tokens", lambda run: np.arange(40) % 9)
    for source, count in ((config.data.source, 0), ("tales", 4)):
        data = dataclasses.replace(config.data, source=source)
        Run(long_run).save_config(dataclasses.replace(config, data=data, model=Run(long_run).config().model))
        assert main(["heads", str(long_run)]) == 0
        assert len(re.findall(r"^\d\.\d   in tales: ", capsys.readouterr().out, re.MULTILINE)) == count


def test_kinds_of_a_short_context(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(run), "--kinds", "--tales", "3"]) == 2
    assert f"None of 3 tales fits into the 32 tokens that {run} sees at once" in capsys.readouterr().err
    config = Run(run).config()
    tokenizer, told = Run(run).tokenizer(), itertools.islice(tales("validation", 1), 20)
    lengths = sorted(len(tokenizer.encode(tale.text)) for tale in told)
    wider = dataclasses.replace(config.model, context_length=lengths[8] + 1)
    Run(run).save_config(dataclasses.replace(config, model=wider))
    assert main(["heads", str(run), "--kinds", "--tales", "20"]) == 0
    fitting = sum(length <= lengths[8] for length in lengths)
    heading = f"on {fitting} held-out tales ({20 - fitting} do not fit into its context)"
    assert heading in capsys.readouterr().out and 9 <= fitting < 20


WHERE = """async () => {
  const found = [];
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    const width = this.measureText(text).width;
    const start = this.textAlign === "right" ? x - width : x;
    if (text === "token") found[0] = start;
    if (text === "attends to") [found[1], found[2]] = [start + width, this.canvas.clientWidth];
    return write.call(this, text, x, y);
  };
  document.querySelector("button[title*='chosen head alone']").click();
  while (found.length < 3) await new Promise(requestAnimationFrame);
  return found;
}"""
"""Draws again and tells where "token" begins and "attends to" ends on a canvas, and how wide that is."""


def snapshot_in(page: Path) -> bytes:
    """The one snapshot that a page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    assert found
    (content,) = json.loads(found[1])["snapshots"]
    return base64.b64decode(content)


def test_a_page_of_a_text_has_its_patterns_and_scores(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = tmp_path / "heads.html", "the <b>cat</b> sat"
    assert main(["heads", str(run), "--text", text, "--html", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err == f"page in {file}\n"
    content = snapshot_in(file)
    header = read_header(io.BytesIO(content))
    model, _ = Run(run).load_model("best", torch.device("cpu"))
    tokens = Run(run).tokenizer().encode(text)
    np.testing.assert_allclose(read_patterns(content), patterns(model, torch.tensor([tokens]))[:, 0], atol=0.004)
    assert header["step"] == 3 and header["probes"][0]["text"] == text
    assert header["scores"].keys() == {*SCORES, "importance", "induction_on_repeats"}
    assert min(header["scores"]["importance"]) > 0


def test_a_page_without_a_text_shows_the_runs_probes(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    config = Run(run).config()
    link: ProbeSetting = {"text": "the cat sat.", "links": [{"from": "sat", "to": "cat"}]}
    Run(run).save_config(dataclasses.replace(config, log=LogConfig(probes=[link, "rain"])))
    assert main(["heads", str(run), "--html", str(file)]) == 0
    header = read_header(io.BytesIO(snapshot_in(file)))
    assert [probe["text"] for probe in header["probes"]] == ["the cat sat.", "rain"]
    assert header["probes"][0]["links"] == [{"name": "sat → cat", "query": [8, 11], "key": [4, 7]}]
    assert header["scores"].keys() == {*SCORES, "importance", "induction_on_repeats"}


def test_a_page_of_a_run_without_probes_asks_for_a_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(run).save_config(dataclasses.replace(Run(run).config(), log=LogConfig(probes=[])))
    assert main(["heads", str(run), "--html", str(tmp_path / "heads.html")]) == 2
    assert "has no probes: give a text" in capsys.readouterr().err
    assert main(["heads", str(run), "--html", str(tmp_path / "heads.html"), "--text", "a"]) == 0  # one token alone


@needs_browser
def test_the_page_of_one_token_has_its_headings_whole(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    assert main(["heads", str(run), "--html", str(file), "--text", "a"]) == 0
    with chromium() as browser, Page(browser, f"{file.as_uri()}#view=columns", width=500) as shown:
        shown.wait("document.body.dataset.step === '3'")
        left, right, room = shown.tab.evaluate(WHERE)
        assert 0 <= left < right <= room


@needs_browser
def test_the_page_opens_in_a_browser_and_colours_heads_by_importance(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    assert main(["heads", str(run), "--text", "the cat sat", "--html", str(file)]) == 0
    values = read_header(io.BytesIO(snapshot_in(file)))["scores"]["importance"]
    with chromium() as browser, Page(browser, f"{file.as_uri()}#score=importance&sort=1") as shown:
        shown.wait("document.body.dataset.step === '3'")
        assert shown.tab.locator("select[aria-label='Score of heads']").input_value() == "importance"
        order = [int(head) for head in shown.tab.eval_on_selector_all(".cell", "all => all.map(c => c.dataset.head)")]
        assert order == sorted(range(4), key=lambda head: -values[head])
        assert shown.tab.locator("h2").text_content() == "Layer 0, head 0"
        assert not shown.errors and shown.requests == [file.as_uri()]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", "a", "--text_file", "b"], "leave one out"),
        (["--text", ""], "text is empty"),
        (["--text_file", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--checkpoint", "9"], "keeps no checkpoint 9"),
        (["--picture", "heads.docx", "--text", "the cat", "--no_ablation"], "end its name with .png"),
        (["--picture", "nowhere/heads.png", "--text", "the cat", "--no_ablation"], "cannot be written"),
        (["--html", "heads.pdf"], "end its name with .html"),
        (["--html", ""], "The name of the page is empty"),
        (["--html", "nowhere/heads.html"], "its folder is not there"),
        (["--html", "heads.html", "--json"], "Both --html and --json are given"),
        (["--html", "folder.html", "--text", "the cat"], "cannot be written"),
        (["--html", "heads.html", "--text", "the cat " * 5], "has 40 tokens, but this model sees 32"),
        (["--html", "heads.html", "--text", "\ud800"], "U+D800"),
        (["--kinds", "--text", "the cat"], "Both --kinds and --text are given"),
        (["--kinds", "--probes", "--no_ablation"], "Both --kinds and --probes, --no_ablation are given"),
        (["--kinds", "--html", "heads.html"], "Both --kinds and --html are given"),
        (["--kinds", "--history", "a.png"], "Both --kinds and --history are given"),
        (["--kinds", "--tales", "0"], "--tales is 0, but it must be at least 1"),
        (["--tales", "5"], "--tales counts the tales of --kinds"),
        (["--dtype", "float16"], "dtype is 'float16', but it takes auto or float32 or bfloat16."),
        (["--colour"], "--colour"),
    ],
)
def test_what_a_person_can_get_wrong(
    arguments: list[str],
    sentence: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    assert main(["heads", str(run), *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("error: ") == 1


def test_another_text_than_the_run_learned_from_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run.parents[1] / "text.txt"
    text.write_text(text.read_text("utf-8") + "more of it.\n", "utf-8")
    assert main(["heads", str(run)]) == 2
    assert "has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["heads", "walkthrough"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = (
        "import sys; from minitx.__main__ import main\n"
        f"try: main([{verb!r}, '--help'])\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'torch', 'datasets', 'numpy', 'tensorboard', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
