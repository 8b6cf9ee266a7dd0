"""Weights alone: which steps keep them, that they come back as float16 holds them, and that odd files are refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minitx.config import Config
from minitx.data.tokenizer import Tokenizer
from minitx.run import weights
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.files import draft_of
from tests.small import small_config, small_model, small_text


def config(keep: int, every: int, steps: int) -> Config:
    plain = Config()
    log = replace(plain.log, keep_weights=keep, snapshots_every=every)
    return replace(plain, train=replace(plain.train, steps=steps), log=log)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = small_config(tmp_path)
    return Run.create(settings.out, settings, Tokenizer.train([small_text(20)], settings.tokenizer), {})


def kept(run: Run, *steps: int) -> None:
    for step in steps:
        weights.keep(run.path, step, small_model(run.tokenizer().vocab_size, seed=step), run.about("id") or "")


@pytest.mark.parametrize(
    ("keep", "every", "steps", "parameters", "expected"),
    [
        (16, 20, 1200, 2_000_000, 16),
        (16, 20, 1200, 10_000_000, 5),  # 20 MB each
        (16, 20, 1200, 60_000_000, 0),  # 120 MB
        (16, 20, 100, 1000, 5),
        (16, 0, 100, 1000, 0),
        (0, 20, 100, 1000, 0),
        (1, 20, 100, 1000, 1),
    ],
)
def test_kept_steps_fit_in_their_bytes(keep: int, every: int, steps: int, parameters: int, expected: int) -> None:
    planned = weights.steps_to_keep(config(keep, every, steps), parameters)
    assert len(planned) == expected and planned == sorted(planned)
    assert len(planned) * 2 * parameters <= 100e6
    assert all(step % every == 0 or step == steps for step in planned)
    assert len(planned) < 2 or (planned[0] == every and planned[-1] == steps)


def test_kept_steps_are_spread_over_the_whole_run() -> None:
    planned = weights.steps_to_keep(config(16, 20, 1210), 1000)
    gaps = [later - step for step, later in itertools.pairwise(planned)]
    assert planned[0] == 20 and planned[-1] == 1210 and max(gaps) - min(gaps) <= 40


def test_weights_come_back_as_float16_holds_them(run: Run) -> None:
    kept(run, 7)
    model, name = run.load_model("7", torch.device("cpu"))
    expected = small_model(run.tokenizer().vocab_size, seed=7)
    assert name == "step-000007" and not model.training and weights.steps(run.path) == [7]
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_a_checkpoint_is_taken_before_weights_alone(run: Run) -> None:
    from minitx.run import checkpoints

    kept(run, 7)
    model = small_model(run.tokenizer().vocab_size, seed=8)
    checkpoints.save(run.path, model, {}, {"step": 7}, best=True, keep=1)
    assert torch.equal(run.load_model("7", torch.device("cpu"))[0].embedding.weight, model.embedding.weight)


def test_every_changed_byte_is_noticed(run: Run) -> None:
    kept(run, 7)
    file = weights.path(run.path, 7)
    content = file.read_bytes()
    for place in [*range(0, 400, 40), *range(400, len(content), len(content) // 9), len(content) - 1]:
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(UserError):
            run.load_model("7", torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7])
def test_what_is_no_weights_is_refused(run: Run, content: bytes) -> None:
    kept(run, 7)
    weights.path(run.path, 7).write_bytes(content)
    with pytest.raises(UserError, match=r"step-000007.safetensors is damaged"):
        run.load_model("7", torch.device("cpu"))


def test_a_renamed_or_foreign_file_is_refused(run: Run) -> None:
    kept(run, 7)
    weights.path(run.path, 7).rename(weights.path(run.path, 8))
    with pytest.raises(UserError, match="holds the weights of step 7: it was renamed"):
        run.load_model("8", torch.device("cpu"))
    weights.keep(run.path, 9, small_model(run.tokenizer().vocab_size), "another run")
    with pytest.raises(UserError, match="of another run"):
        run.load_model("9", torch.device("cpu"))
    weights.keep(run.path, 10, small_model(99), run.about("id") or "")
    with pytest.raises(UserError, match="does not fit the model"):
        run.load_model("10", torch.device("cpu"))


def test_weights_beyond_float16_are_not_kept(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    with torch.no_grad():
        model.embedding.weight[0, 0] = 1e6
    weights.keep(run.path, 7, model, "")
    assert "too large for float16" in capsys.readouterr().err and weights.steps(run.path) == []


def test_a_resumed_run_forgets_later_weights_and_drafts(run: Run) -> None:
    kept(run, 4, 8, 12)
    draft_of(weights.path(run.path, 12)).write_bytes(b"x")
    weights.forget_after(run.path, 8, [4, 8, 12])
    assert weights.steps(run.path) == [4, 8] and len([*(run.path / "weights").iterdir()]) == 2


def test_a_longer_run_thins_out_what_a_shorter_one_kept(run: Run) -> None:
    kept(run, 1, 2, 3, 4, 5, 6)
    weights.forget_after(run.path, 6, [3, 7, 10])
    assert weights.steps(run.path) == [3]


def test_turning_it_off_removes_nothing(run: Run) -> None:
    kept(run, 4, 8)
    weights.forget_after(run.path, 6, [])
    assert weights.steps(run.path) == [4]


def test_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run.path / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        weights.forget_after(run.path, 0, [])


def test_the_file_says_what_it_is(run: Run) -> None:
    kept(run, 7)
    content = weights.path(run.path, 7).read_bytes()
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert about["step"] == "7" and about["run"] == run.about("id") and len(about["sha256"]) == 64
