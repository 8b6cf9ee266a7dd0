"""The run folder: names, checkpoints that are whole or refused, metrics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from minitx.config import Config, TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.run.folder import Run
from minitx.system.errors import UserError
from tests.small import small_config, small_model, small_text


def saved(run: Run, *steps: int, best: int | None = None, keep: int = 9) -> None:
    for step in steps:
        run.save_checkpoint(
            small_model(seed=step), {"x": torch.tensor([step])}, {"step": step}, best=step == best, keep=keep
        )


def test_a_name_taken_gets_a_number(tmp_path: Path) -> None:
    names = [Run.create(str(tmp_path / "runs" / "a")).path.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Run.create(str(tmp_path / "file" / "run"))


def test_last_best_and_steps(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 5, 10, 15, best=10)
    assert [run.checkpoint(name).step for name in ("last", "best", "5", "step-000015")] == [15, 10, 5, 15]
    with pytest.raises(UserError, match="keeps no checkpoint 7: it has 5, 10, 15, best, last"):
        run.checkpoint("7")
    with pytest.raises(UserError, match="keeps no checkpoint newest"):
        run.checkpoint("newest")


def test_old_checkpoints_go_but_never_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2, 3, 4, 5, best=2, keep=2)
    assert run.checkpoint_names() == ["step-000002", "step-000004", "step-000005"]
    assert not list((tmp_path / "checkpoints").glob(".*")), "a draft was left"


def test_logs_are_cut_back_to_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Torn lines, lines of later steps and event files begun since: a resumed run writes them again."""
    run = Run(tmp_path)
    for step in range(1, 4):
        run.append_metrics({"step": step, "train_loss": step / 10})
    (tmp_path / "events.out.tfevents.1").write_bytes(b"curves")
    saved(run, 3)
    run.append_metrics({"step": 4, "train_loss": float("nan")})
    assert run.metrics()[-1] == {"step": 4, "train_loss": None}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train_l')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    (tmp_path / "events.out.tfevents.1").write_bytes(b"curves and more")
    (tmp_path / "events.out.tfevents.2").write_bytes(b"later")
    run.cut_logs(run.checkpoint("last"))
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    assert [file.name for file in run.logs()] == ["events.out.tfevents.1", "metrics.jsonl"]
    assert run.logs()[0].read_bytes() == b"curves" and capsys.readouterr().err == ""
    (tmp_path / "metrics.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes().replace(b"0.1", b"9.1"))
    (tmp_path / "events.out.tfevents.1").unlink()
    run.cut_logs(run.checkpoint("last"))
    warning = capsys.readouterr().err
    assert "metrics.jsonl has changed" in warning and "events.out.tfevents.1 is missing" in warning
    run.cut_logs(None)
    assert run.logs() == []


def test_steps_beyond_six_digits_are_in_order(tmp_path: Path) -> None:
    """By name, step-1000000 would come before step-999999."""
    run = Run(tmp_path)
    saved(run, 999_998, 999_999, 1_000_000, keep=2)
    assert run.checkpoint_names() == ["step-999999", "step-1000000"]
    assert run.checkpoint("last").step == 1_000_000


def test_pruning_never_counts_damaged_checkpoints_of_later_steps(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2, 8, 9, keep=9)
    for name in ("step-000008", "step-000009"):
        (tmp_path / "checkpoints" / name / "model.safetensors").unlink()
    saved(run, 3, keep=2)
    assert run.checkpoint_names() == ["step-000002", "step-000003"]


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
    with pytest.raises(UserError, match="step-000000 is damaged"):
        run.checkpoint("0")
    run.cut_logs(None)
    saved(run, 3, keep=1)
    assert run.checkpoint_names() == ["step-000001", "step-000003"]
    assert outside.checkpoint("last").step == 5
    assert (outside.path / "checkpoints" / "last").read_text() == "step-000005"


def test_what_killed_processes_left_goes_and_two_cannot_train_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1)
    (tmp_path / "checkpoints" / ".step-000002-123").mkdir()
    (tmp_path / ".config.yaml-123").write_text("half")
    with run.locked():
        assert not list(tmp_path.rglob(".*"))
        if os.name == "nt":
            return
        with pytest.raises(UserError, match="Another process is training"), Run(tmp_path).locked():
            pass
    with run.locked():
        assert run.checkpoint("last").step == 1


def test_a_config_that_changed_is_refused_unless_its_first_line_is_gone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save_config(Config(seed=5))
    file = tmp_path / "config.yaml"
    whole = file.read_bytes()
    assert run.config().seed == 5
    for damage in (whole.replace(b"seed: 5", b"seed: 7"), whole[:-9], whole[:90], whole[:9], b""):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"config.yaml is damaged, or was edited"):
            run.config()
    file.write_bytes(whole.split(b"\n", 1)[1].replace(b"seed: 5", b"seed: 7"))
    assert run.config().seed == 7


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
        run = Run.create(str(tmp_path / "runs" / name))
        run.save_config(Config())
        if name != "empty":
            saved(run, 1)
            os.utime(run.path / "checkpoints", (1e9 - age, 1e9 - age))
    assert Run.find(None, root=str(tmp_path / "runs")).path.name == "new"


def test_a_run_loads_its_model_and_configuration(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train([small_text(20)], TokenizerConfig(type="char"))
    config = small_config(tmp_path)
    run = Run.create(config.out)
    run.save_config(config)
    tokenizer.save(run.path / "tokenizer.model")
    run.save_checkpoint(small_model(tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    found = Run.find(str(run.path))
    assert found.config() == config
    model, name = found.load_model("best", torch.device("cpu"))
    assert name == "step-000003" and not model.training
    assert found.tokenizer().encode("the cat") == tokenizer.encode("the cat")
