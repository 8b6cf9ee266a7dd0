"""`minitx heads RUN --examples`, from stored examples and from a checkpoint, and the plugin's route to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.heads import examples_file, snapshots
from tests.commands.test_heads import run as run  # a fixture
from tests.heads.test_examples import hand_made


def test_examples_of_a_checkpoint_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(run), "--examples"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{run}, step 3, in ") and "32 at once" in out
    assert out.count("\nlayer ") == 4 and out.count(" of the queries") == 4 and out.count("«") == 4 * 8 + 1
    assert main(["heads", str(run), "--examples", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["layers"], found["heads_in_a_layer"], len(found["heads"])) == (3, 2, 2, 4)
    assert len(found["heads"][3]["strongest"]) == 8


def test_the_newest_stored_examples_come_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        examples_file.write(run, hand_made()._replace(step=step, run=snapshots.run_id(run) or ""))
    assert main(["heads", str(run), "--examples"]) == 0
    out = capsys.readouterr().out
    assert "step 2, in 40 tokens" in out and "0.50   0 «1» 2 3 4 [5] 6 7 8 9\n" in out
    assert "weight from 0.5: 83%, 0.9: 17% of the queries" in out
    assert main(["heads", str(run), "--examples", "--checkpoint", "last"]) == 0
    assert "step 3, in " in capsys.readouterr().out


def test_what_does_not_go_with_examples_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(run), "--examples", "--text", "a"]) == 2
    assert capsys.readouterr().err == "error: Both --examples and --text are given: leave one out.\n"
