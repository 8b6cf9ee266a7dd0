"""Shipped configurations are found by name from any folder, and never instead of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitx.commands.generate import parse_generate
from minitx.commands.train import parse_train
from minitx.config.parsing import load_config
from minitx.config.shipped import CONFIGS, config_names, find_config, summary
from minitx.system.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_file_of_a_checkout_has_a_name_and_says_what_it_is() -> None:
    assert config_names() == sorted(file.stem for file in (ROOT / "configs").glob("*.yaml"))
    for name in config_names():
        assert summary(CONFIGS / f"{name}.yaml").endswith((".", ")."))


@pytest.mark.parametrize("arguments", [["--config", "tales"], ["--config=tales"]])
def test_a_name_gives_the_settings_of_its_file(arguments: list[str]) -> None:
    config, _ = parse_train(["--seed", "2", *arguments, "--out", "x"], "train.py")
    shipped = load_config(ROOT / "configs" / "tales.yaml")
    assert (config.data, config.model, config.train, config.log) == (
        shipped.data,
        shipped.model,
        shipped.train,
        shipped.log,
    )
    assert (config.seed, config.out) == (2, "x")


def test_a_file_wins_over_a_name_and_a_folder_does_not() -> None:
    Path("quick").mkdir()
    assert find_config("quick") == CONFIGS / "quick.yaml"
    Path("tales").write_text("seed: 7\n")
    assert parse_train(["--config", "tales"], "train.py")[0].seed == 7


@pytest.mark.parametrize("name", ["tale", "TALES", "configs/tales.yaml", "tales.yaml", "../tales"])
def test_an_unknown_name_gets_the_nearest_and_the_list(name: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_train(["--config", name], "train.py")
    start = f"There is no configuration {name} (did you mean tales?): give a YAML file, or one of default,"
    assert str(caught.value).startswith(start)


def test_only_training_takes_names() -> None:
    """The settings of generate are others, and every one of tales would be called unknown."""
    with pytest.raises(UserError, match=r"There is no configuration file tales\."):
        parse_generate(["--config", "tales"], "generate.py")
