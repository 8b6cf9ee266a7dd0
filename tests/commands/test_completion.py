"""The script that `minitx completion` writes, run by a real bash: it completes verbs, settings, values and names."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable

import pytest

from minitx.__main__ import main
from minitx.commands import completion
from minitx.commands.verbs import VERBS
from minitx.config import Config
from minitx.config.parsing import setting_names
from minitx.config.shipped import config_names

TRY = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_minitx; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., set[str]]:
    """What bash proposes for the last of some words; beside it are the folders runs/one and runs/two."""
    pytest.importorskip("shtab", reason="shtab, which writes the script, is not installed")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "script").write_text(completion.script("bash"))
    for name in ("one", "two"):
        (folder / "runs" / name).mkdir(parents=True)

    def proposals(*words: str) -> set[str]:
        command = ["bash", "-c", TRY, "bash", str(folder / "script"), "minitx", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
        assert not done.stderr
        return {*done.stdout.split()}

    return proposals


def test_verbs(bash: Callable[..., set[str]]) -> None:
    assert bash("") == {*VERBS} and bash("wa") == {"walkthrough"}


def test_every_setting_and_its_values(bash: Callable[..., set[str]]) -> None:
    assert {f"--{name}" for name in setting_names(Config)} <= bash("train", "--")
    assert bash("train", "--seed", "3", "--model.n_") == {"--model.n_layer", "--model.n_head", "--model.n_kv_head"}
    assert bash("compare", "--model.attention", "") == {"multi_head", "latent"}
    assert bash("generate", "runs/one", "--temp") == {"--temperature"}


def test_names_of_configurations_and_runs(bash: Callable[..., set[str]]) -> None:
    assert {*config_names()} <= bash("train", "--config", "")
    assert bash("configs", "tal") == {"tales"}
    for words in (["generate"], ["heads"], ["train", "--resume"]):
        assert bash(*words, "") == {"runs/one", "runs/two"} and bash(*words, "runs/t") == {"runs/two"}


def test_zsh_gets_a_script_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="shtab, which writes the script, is not installed")
    assert main(["completion", "zsh"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("#compdef minitx\n") and "--model.n_kv_head" in out and "_minitx_run_dirs" in out


def test_without_shtab_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert capfd.readouterr().err.startswith("error: shtab, which writes the script, is not installed: pip install")
