"""The README is true: its commands parse, CI runs its test command, and its map names every folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from minitx.commands.generate import parse_generate
from minitx.commands.train import parse_train
from minitx.commands.verbs import VERBS
from tests.test_layers import ORDER

ROOT = Path(__file__).parents[1]
README, GUIDE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/guide.md"))
BLOCKS = re.findall(r"```sh\n(.*?)```", README + GUIDE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]


def arguments(command: str, script: str) -> list[str] | None:
    """What `command` hands to `script`, or None when it does not call it."""
    words = shlex.split(command, comments=True)
    place = next((i for i, word in enumerate(words) if word.endswith(script)), None)
    return None if place is None else words[place + 1 :]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_programs_take(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if (given := arguments(command, "train.py")) is not None:
        if "--resume" not in given:
            parse_train(given, "train.py")
    elif (given := arguments(command, "generate.py")) is not None:
        parse_generate(given, "generate.py")
    elif (given := arguments(command, "minitx")) is not None:
        assert given[0] in VERBS
    else:
        assert command.split()[0] in ("cat", "hf", "mkdir", "pip", "tensorboard") or "-m pytest" in command


def test_ci_runs_the_test_command_of_the_readme() -> None:
    (command,) = (command for command in COMMANDS if "-m pytest" in command)
    assert command in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_map_has_every_room() -> None:
    table = README.split("## The map of the house")[1].split("\n## ")[0]
    assert {name.strip("/").removesuffix(".py") for name in re.findall(r"`(\w+(?:/|\.py))`", table)} == set(ORDER)


def test_links_and_pictures_lead_somewhere() -> None:
    for folder, page in ((ROOT, README), (ROOT / "docs", GUIDE)):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page):
            assert (folder / target).is_file(), target


def test_anchors_are_headings_of_the_guide() -> None:
    headings = {re.sub(r"[^\w -]", "", line.strip("# ")).lower().replace(" ", "-") for line in GUIDE.splitlines()}
    assert set(re.findall(r"docs/guide\.md#([\w-]+)", README)) <= headings


def test_the_readme_is_for_a_first_visit() -> None:
    assert len(README.splitlines()) <= 180


def test_every_shipped_configuration_is_in_the_table() -> None:
    for file in (ROOT / "configs").glob("*.yaml"):
        assert f"`configs/{file.name}`" in README
