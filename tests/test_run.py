"""The run folder: names, checkpoints that are whole or refused, metrics."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from minitx.config import Config, TokenizerConfig, UserError
from minitx.files import checksum, json_bytes, read_json
from minitx.run import Run, load_weights, save_weights
from minitx.tokenizer import Tokenizer
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


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 7)
    model = small_model(seed=1)
    checkpoint = run.checkpoint("last")
    checkpoint.load_weights(model)
    assert checkpoint.step == 7 and checkpoint.load_optimizer()["x"].item() == 7
    for ours, theirs in zip(model.parameters(), small_model(seed=7).parameters(), strict=True):
        assert torch.equal(ours, theirs)


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


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_named_and_stepped_over(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2)
    file = tmp_path / "checkpoints" / "step-000002" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x80
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-20])
    else:
        file.unlink()
    with pytest.raises(UserError, match=f"step-000002 is damaged: .*{name}"):
        run.checkpoint("2")
    checkpoint, faults = run.newest_whole_checkpoint()
    assert checkpoint is not None and checkpoint.step == 1 and len(faults) == 1
    assert run.checkpoint("last").step == 1
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and name in warning and "Taking step-000001" in warning


def test_a_pickle_in_place_of_the_optimizer_is_not_run(tmp_path: Path) -> None:
    """Even with a checksum that fits."""

    class Mark:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (exec, (f"open({str(tmp_path / 'mark')!r}, 'w')", ""))

    run = Run(tmp_path)
    saved(run, 1)
    folder = tmp_path / "checkpoints" / "step-000001"
    (folder / "optimizer.pt").write_bytes(pickle.dumps(Mark()))
    state = read_json(folder / "state.json")
    state["checksums"]["optimizer.pt"] = checksum(folder / "optimizer.pt")
    (folder / "state.json").write_bytes(json_bytes(state))
    with pytest.raises(UserError, match="optimizer.pt"):
        run.checkpoint("last").load_optimizer()
    assert not (tmp_path / "mark").exists()


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    save_weights(small_model(vocab_size=30), tmp_path / "w")
    with pytest.raises(UserError, match=r"embedding.weight is \(30, 16\), not \(31, 16\)"):
        load_weights(small_model(vocab_size=31), tmp_path / "w")
    (tmp_path / "w").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights(small_model(), tmp_path / "w")


def test_metrics_are_cut_back_to_a_step_and_survive_a_torn_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(1, 6):
        run.append_metrics({"step": step, "train_loss": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train_l')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5]
    run.cut_metrics(3)
    run.append_metrics({"step": 4, "train_loss": 0.4})
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]


def test_finding_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained run"):
        Run.find(None, root=str(tmp_path / "runs"))
    with pytest.raises(UserError, match="There is no run"):
        Run.find(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not a run folder"):
        Run.find(str(tmp_path))
    import os

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
