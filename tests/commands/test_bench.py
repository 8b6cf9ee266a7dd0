"""The command `minitx bench`: what it prints, what it writes, and how it reports wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from minitx.__main__ import main
from minitx.bench.machine import device_name, head, version
from minitx.bench.settings import SUITES, BenchConfig
from minitx.bench.suites import ceiling
from minitx.system import timing
from tests.bench.small import cpu

QUICK = ["--device", "cpu", "--threads", "1", "--repeats", "1", "--seconds", "0.01"]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "tokenizer:\n  type: char\nmodel:\n  n_layer: 1\n  n_head: 2\n  d_model: 16\n  context_length: 8\n"
        "train:\n  batch_size: 2\n"
    )
    return str(file)


def test_tables_in_the_terminal_and_in_json(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "SHORTEST", 1e-4)
    monkeypatch.setitem(ceiling.SIZES, "cpu", (16,))
    monkeypatch.setitem(ceiling.COPIED, "cpu", 1 << 12)
    file = tmp_path / "found.json"
    arguments = ["bench", "--suite", "ceiling, generate", "--shape", tiny, "--json", str(file), *QUICK]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for name in ("device", "threads", "precision", "compile", "versions", "date"):
        assert f"{name}: " in printed.split("###")[0]
    assert printed.count("### ceiling") == 2 and printed.count("### generate") == 2
    found = json.loads(file.read_text())
    assert [table["suite"] for table in found["tables"]] == ["ceiling"] * 2 + ["generate"] * 2
    assert found["about"]["threads"] == "1"
    assert found["command"].startswith("minitx bench --suite 'ceiling, generate' --shape")
    assert found["tables"][0]["raw"]["float32, torch.mm"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "trian"], "There is no suite 'trian' (did you mean train?)"),
        (["--shape", "15n"], "There is no shape '15n' (did you mean 15m?)"),
        (["--shape", ""], "shape is empty"),
        (["--shape", ","], "shape is empty"),
        (["--suite", ","], "suite is empty"),
        (["--repeats", "0"], "repeats is 0"),
        (["--seconds", "-1"], "seconds is -1"),
        (["--turns", "0"], "turns is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--threads", "0"], "threads is 0"),
        (["--loss_target", "0"], "loss_target is 0"),
        (["--text", "nowhere.txt"], "There is no text nowhere.txt"),
        (["--json", "no/folder/x.json"], "its folder is not there"),
        (["--json", "folder.png"], "folder.png cannot be written: it is a folder"),
        (["--suite", "loss", "--plot", "folder.png"], "folder.png cannot be written: it is a folder"),
        (["--json", "x" * 300], "cannot be written (File name too long)"),
        (["--plot", "x.png"], "only the suite loss draws one"),
        (["--suite", "loss", "--plot", "x.txt"], "is no picture"),
        (["--suite", "loss"], "needs the text to learn from"),
        (["--suite", "budget", "--tracks", "tale"], "There is no track 'tale' (did you mean tales?)"),
        (["--suite", "budget", "--tracks", "tinyshakespeare"], "The track tinyshakespeare needs the text"),
        (["--suite", "budget", "--budget_config", "x.yaml"], "budget_config is a recipe for one track"),
        (["--suite", "budget", "--against", "x.yaml"], "against is a recipe for one track"),
        (["--budgets", "60,soon"], "budgets has 'soon', but it takes positive numbers"),
        (["--step_ms", "40,fast"], "step_ms has 'fast'"),
        (["--step_ms", "40", "--steps", "3"], "steps and step_ms both say"),
        (["--budgets", "0"], "budgets has '0'"),
        (["--budgets", "nan"], "budgets has 'nan'"),
        (["--budgets", ","], "budgets is empty"),
        (["--seeds", "1.5"], "seeds has '1.5', but it takes a number of seeds"),
        (["--seeds", "0"], "seeds has '0'"),
        (["--seeds", "1,-2"], "seeds has '-2'"),
        (["--suite", "gpu"], "There is no suite 'gpu'"),
        (["--nanogpt", "nowhere"], "nowhere is no checkout of nanoGPT"),
        (["--llama2c", "nowhere"], "nowhere is no program"),
        (["--dtype", "float16"], "float16"),
        (["--repeat", "3"], "There is no option --repeat (did you mean --repeats?)"),
    ],
)
def test_what_a_person_can_get_wrong(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_loss_without_nano_gpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a text")
    assert main(["bench", "--suite", "loss", "--text", str(file)]) == 2
    assert "--nanogpt PATH" in capsys.readouterr().err


def test_help_names_every_suite(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--help"])
    assert stopped.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} ({meaning})" in printed for name, meaning in SUITES.items())


def test_the_default_suites_need_nothing_else() -> None:
    assert not {"loss", "scaling", "budget"} & set(BenchConfig().suites)


def test_the_head_names_the_machine() -> None:
    about = head(cpu())
    assert about["precision"] == "float32, where a table names no other"  # generate and ceiling have both
    assert f"torch {torch.__version__}" in about["versions"]
    assert device_name(torch.device("cpu")).endswith("(cpu)")
    assert version("no-such-package") == "not installed"
