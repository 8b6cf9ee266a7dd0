"""The command `minitx plan`: what it prints and writes, how it reports wrong settings, and the tables of its page."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.config.shipped import CONFIGS

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_tables_sentences_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    shown = printed(capsys, "--processes", "1,8", "--train.batch_size", "64", "--json", str(file))
    assert shown.count("data parallel") >= 4 and "ms per step" in shown and "MB per GPU" in shown
    assert re.search(r"\n1 GPU: take [\w ,]+: [\d.,]+ ms a step, \d+% of ideal. It pays up to [\d,]+ GPUs?; ", shown)
    found = json.loads(file.read_text())
    assert found["tokens per step"] == 64 * 128 and len(found["cases"]) == 6
    for case in found["cases"]:
        seconds = case["seconds"]
        assert seconds["in all"] == pytest.approx(sum(seconds.values()) - seconds["in all"])


def test_a_shipped_configuration_is_found_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    figures = [
        printed(capsys, "--config", config).partition("\n\n")[2] for config in ("tales", str(CONFIGS / "tales.yaml"))
    ]
    assert figures[0] == figures[1]
    assert main(["plan", "--config", "tale"]) == 2
    assert "did you mean tales?" in capsys.readouterr().err


def test_a_model_that_fits_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--model.d_model", "65536", "--model.n_layer", "100"]
    assert re.search(
        r"8 GPUs: nothing fits; sharded[\w, ]* needs [\d,.]+ GB. Try a smaller train", printed(capsys, *huge)
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--processes", "many"], "processes is 'many', but it takes numbers with commas"),
        (["--processes", "0"], "processes is '0'"),
        (["--processes", "9"], "9 processes cannot share train.batch_size 16 × train.grad_accum 1 = 16 rows evenly"),
        (["--gpu", "h10"], "gpu is 'h10'"),
        (["--compute_share", "1.1"], "compute_share is 1.1"),
        (["--launch", "-1"], "launch is -1"),
        (["--pays", "0"], "pays is 0"),
        (["--model.attention", "latent"], "plan counts plain multi-head attention"),
        (["--json", "nowhere/plan.json"], "its folder is not there"),
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
    assert main(["plan", *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.out == ""


def test_the_tables_of_the_page_are_what_its_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    sections = re.findall(r"```sh\n(minitx plan .*?)```(.*?)(?=```|\Z)", PAGE, re.DOTALL)
    assert len(sections) == 7
    for command, below in sections:
        shown = printed(capsys, *shlex.split(command.replace("\\\n", " "))[2:]).splitlines()
        lines = [line for line in below.splitlines() if re.match(r"\| +(GPUs|\d+) \||[\d,]+ GPUs: ", line)]
        assert [line for line in lines if line.rstrip() not in shown] == []
