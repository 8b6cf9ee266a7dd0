"""The run folder: created as a whole, found by name, locked; its configuration and tokenizer are checked."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from minitx.config import Config, TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.run import checkpoints
from minitx.run.folder import Run
from minitx.run.logs import cut_logs
from minitx.system.errors import UserError
from minitx.system.files import checksum, json_bytes, read_json, sha256, write_atomically
from tests.small import small_config, small_model, small_text


def saved(run: Run, *steps: int, best: int | None = None, keep: int = 9) -> None:
    for step in steps:
        optimizer_state = {"x": torch.tensor([step])}
        checkpoints.save(
            run.path, small_model(seed=step), optimizer_state, {"step": step}, best=step == best, keep=keep
        )


def small_tokenizer() -> Tokenizer:
    return Tokenizer.train([small_text(20)], TokenizerConfig(type="char"))


def made(out: Path, **settings: Any) -> Run:
    """A run without checkpoints."""
    return Run.create(str(out), Config(**settings), small_tokenizer(), {"fingerprint": "f"})


def old(run: Run) -> Run:
    """`run` as an older version wrote it: config.yaml begins with its checksum, and data.json has none."""
    text = (run.path / "config.yaml").read_bytes()
    seal = f"# sha256 of the lines below (take this line out if you edit them): {sha256(text)}\n"
    (run.path / "config.yaml").write_bytes(seal.encode() + text)
    about = read_json(run.path / "data.json")
    del about["config"], about["previous_config"]
    (run.path / "data.json").write_bytes(json_bytes(about))
    return run


def test_a_name_taken_gets_a_number(tmp_path: Path) -> None:
    names = [made(tmp_path / "runs" / "a").path.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        made(tmp_path / "file" / "run")


def test_a_new_run_has_its_tokenizer_text_and_configuration(tmp_path: Path) -> None:
    config, tokenizer = small_config(tmp_path), small_tokenizer()
    run = Run.create(config.out, config, tokenizer, {"fingerprint": "f"})
    assert {file.name for file in run.path.iterdir()} == {"tokenizer.model", "data.json", "config.yaml"}
    assert yaml.safe_load((run.path / "config.yaml").read_text("utf-8")) == config.to_dict(), "plain YAML"
    about = run.read_json("data.json")
    assert (about["fingerprint"], about["tokenizer"]) == ("f", tokenizer.digest)
    assert about["config"] == checksum(run.path / "config.yaml")
    second = Run.create(config.out, config, tokenizer, {})
    assert second.config().out == str(second.path) == config.out + "-2"


@pytest.mark.parametrize("file", ["data.json", "config.yaml"])
def test_a_new_run_that_cannot_be_written_leaves_nothing(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(file, monkeypatch)
    with pytest.raises(OSError, match="full"):
        made(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def fail_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing the file `name` of a run fail."""

    def write(file: Path, content: bytes) -> None:
        if file.name == name:
            raise OSError("full")
        write_atomically(file, content)

    monkeypatch.setattr("minitx.system.files.write_atomically", write)


def test_a_run_is_built_under_a_hidden_name(tmp_path: Path) -> None:
    """A kill leaves a folder that is no run and blocks none; the next call removes it."""
    config, out, dead = small_config(tmp_path), tmp_path / "runs" / "a", 1 << 30
    (tmp_path / "runs" / f".a-2-{dead}" / "a-2").mkdir(parents=True)
    (tmp_path / "runs" / f".b-{dead}").mkdir()
    with Run.building(str(out)) as run:
        assert not out.exists() and run.furnish(config, small_tokenizer(), {}).out == str(out)
        (out / "other").mkdir(parents=True)  # by another process
    assert run.path == tmp_path / "runs" / "a-2" and run.config().out == str(run.path)
    with pytest.raises(KeyboardInterrupt), Run.building(str(out)):
        raise KeyboardInterrupt
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [f".b-{dead}", "a", "a-2"]


STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to(os.devnull),
    "loop": lambda path: path.symlink_to(path.name),
    "hole of 4 TB": lambda path: path.open("xb").truncate(1 << 42),
    "folder": lambda path: path.mkdir(),
}
USES: dict[str, Callable[[Run], object]] = {
    "config.yaml": lambda run: run.config(),
    "data.json": lambda run: run.config(),
    "tokenizer.model": lambda run: run.tokenizer(),
    "summary.json": lambda run: run.fields("summary.json"),
    "metrics.jsonl": lambda run: run.metrics(),
    "heads.jsonl": lambda run: run.heads(),
    "checkpoints/step-000001/state.json": lambda run: run.checkpoint("1"),
    "checkpoints/step-000001/model.safetensors": lambda run: run.checkpoint("1"),
    "checkpoints/step-000001/optimizer.pt": lambda run: run.checkpoint("1"),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither pipes in folders nor /dev/null")
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", USES)
def test_only_plain_files_of_fitting_size_are_read(name: str, kind: str, tmp_path: Path) -> None:
    """No wait for the writer of a pipe, no terabytes of memory."""
    run = made(tmp_path / "run")
    for log in ("metrics.jsonl", "heads.jsonl"):
        run.append_metrics({"step": 1}, log)
    saved(run, 1)
    (run.path / name).unlink(missing_ok=True)
    STRANGE[kind](run.path / name)
    with pytest.raises(UserError, match=f"{name} cannot be read") as caught:
        USES[name](run)
    assert "\n" not in str(caught.value)
    if name.endswith(".jsonl") and kind != "hole of 4 TB":
        with pytest.raises(UserError, match=f"{name} cannot be written"):
            run.append_metrics({"step": 2}, name)
    if name.endswith(".jsonl") and kind != "folder":
        with contextlib.suppress(UserError):  # a hole has changed, and what it began with is read
            cut_logs(run.path, run.checkpoint("1").logs, 1)


def test_pointers_and_links_lead_nowhere_else(tmp_path: Path) -> None:
    """Nothing outside the run folder is read as its own, changed or removed."""
    outside = Run(tmp_path / "outside")
    saved(outside, 5)
    run = Run(tmp_path / "run")
    saved(run, 1, 2, best=1)
    (run.path / "checkpoints" / "best").write_text("../../outside/checkpoints/step-000005")
    (run.path / "checkpoints" / "step-000000").symlink_to(outside.path / "checkpoints" / "step-000005")
    (run.path / "checkpoints" / "step-x").mkdir()
    (run.path / "metrics.jsonl").symlink_to(outside.path / "checkpoints" / "last")
    assert run.checkpoint("best").step == 1
    with pytest.raises(UserError, match="step-000000/state.json is damaged: step is 5"):
        run.checkpoint("0")
    cut_logs(run.path, {}, 0)
    saved(run, 3, keep=1)
    assert checkpoints.names(run.path) == ["step-000001", "step-000003"]
    assert outside.checkpoint("last").step == 5
    assert (outside.path / "checkpoints" / "last").read_text() == "step-000005"


def test_what_killed_processes_left_goes_and_two_cannot_train_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1)
    (tmp_path / "attention").mkdir()
    for name in ("step-000002-123", "old-123", "step-000002-old-123"):
        (tmp_path / "checkpoints" / f".{name}").mkdir()
    for name in (".config.yaml-123", "attention/.step-000002.heads-123"):
        (tmp_path / name).write_text("half")
    with run.locked():
        assert [path.name for path in tmp_path.rglob(".*")] == [".lock"]
        with pytest.raises(UserError, match="Another process is training"), Run(tmp_path).locked():
            pass
    assert not list(tmp_path.rglob(".*")), "the lock is gone, too"
    with run.locked():
        assert run.checkpoint("last").step == 1


def test_a_folder_that_cannot_be_locked_is_no_error(tmp_path: Path) -> None:
    """Such as one on a file system without locks; writing to a read-only one fails soon enough."""
    (tmp_path / ".lock").mkdir()
    with Run(tmp_path).locked():
        pass
    assert (tmp_path / ".lock").exists(), "only the one who holds a lock removes it"


def test_a_config_that_changed_is_refused_unless_it_says_that_it_was_edited(tmp_path: Path) -> None:
    run = made(tmp_path / "run", seed=5)
    file = run.path / "config.yaml"
    whole = file.read_bytes()
    assert run.config().seed == 5
    edited = whole.replace(b"seed: 5", b"seed: 7")
    for damage in (edited, whole[:-9], whole[:90], whole[:9], b"", b"# edit\n" + whole, whole + b"# edited\n"):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"config.yaml is damaged, or was edited: restore it; .*'# edited'"):
            run.config()
    file.write_bytes(b"# edited\r\n" + edited)
    assert run.config().seed == 7
    run.save_config(run.config())
    assert file.read_bytes() == edited, "its checksum is in data.json again"


def test_the_config_of_an_older_run_is_checked_and_gets_the_new_form(tmp_path: Path) -> None:
    run = old(made(tmp_path / "run", seed=5))
    file = run.path / "config.yaml"
    whole = file.read_bytes()
    assert run.config().seed == 5
    edited = whole.replace(b"seed: 5", b"seed: 7")
    for damage in (edited, whole[:-9], whole[:90], whole[:9], b""):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"config.yaml is damaged, or was edited"):
            run.config()
    for accepted in (b"# edited\n" + edited, edited.split(b"\n", 1)[1]):  # the second as older versions asked for
        file.write_bytes(accepted)
        assert run.config().seed == 7
    file.write_bytes(whole)
    run.save_config(run.config())
    assert file.read_bytes() == whole.split(b"\n", 1)[1] and run.config().seed == 5
    assert run.read_json("data.json")["config"] == checksum(file)


@pytest.mark.parametrize("age", ["new", "old"])
def test_a_crash_while_the_config_is_rewritten_does_no_harm(
    age: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After data.json, before config.yaml; twice, and then it is rewritten."""
    run = made(tmp_path / "run", seed=5)
    if age == "old":
        old(run)
    with monkeypatch.context() as patch:
        fail_at("config.yaml", patch)
        for seed in (6, 7):
            with pytest.raises(OSError, match="full"):
                run.save_config(Config(seed=seed))
            assert run.config().seed == 5
    run.save_config(Config(seed=8))
    assert run.config().seed == 8


def test_json_of_a_run_has_null_for_what_json_does_not_have(tmp_path: Path) -> None:
    Run(tmp_path).write_json("a.json", {"loss": math.nan, "rows": [{"best": math.inf}, (1.5, "x")]})
    assert Run(tmp_path).read_json("a.json") == {"loss": None, "rows": [{"best": None}, [1.5, "x"]]}


def test_a_tokenizer_that_changed_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train([small_text(20)], TokenizerConfig(type="char"))
    run = Run(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.model")
    run.write_json("data.json", {"tokenizer": tokenizer.digest})
    assert run.tokenizer().digest == tokenizer.digest
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.proto.replace(b"w", b"v"))
    with pytest.raises(UserError, match=r"tokenizer.model has changed"):
        run.tokenizer()


def test_finding_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained run"):
        Run.find(None, root=str(tmp_path / "runs"))
    with pytest.raises(UserError, match="There is no run"):
        Run.find(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not a run folder"):
        Run.find(str(tmp_path))
    for age, name in enumerate(["new", "old", "empty"]):
        run = made(tmp_path / "runs" / name)
        if name != "empty":
            saved(run, 1)
            os.utime(run.path / "checkpoints", (1e9 - age, 1e9 - age))
    assert Run.find(None, root=str(tmp_path / "runs")).path.name == "new"


def test_a_run_loads_its_model_and_configuration(tmp_path: Path) -> None:
    config, tokenizer = small_config(tmp_path), small_tokenizer()
    run = Run.create(config.out, config, tokenizer, {})
    checkpoints.save(run.path, small_model(tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    again = Run.find(str(run.path))
    assert again.config() == config
    model, name = again.load_model("best", torch.device("cpu"))
    assert name == "step-000003" and not model.training
    assert again.tokenizer().encode("the cat") == tokenizer.encode("the cat")
