"""The command `minitx walkthrough` on a hand-made run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.config import TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.run import checkpoints
from minitx.run.folder import Run
from tests.small import small_config, small_model, small_text

CONTEXTS = ["--contexts", "the cat sat", "a mat cat", "--word", "cat"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = small_config(tmp_path)
    tokenizer = Tokenizer.train([small_text(20)], config.tokenizer)
    run = Run.create(config.out, config, tokenizer, {})
    checkpoints.save(run.path, small_model(tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    return run.path


def test_on_the_terminal_and_as_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["walkthrough", str(run), "--text", "the cat sat", "--layer", "1", "--head", "1", *CONTEXTS]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("Layer 1, head 1, token 10 't'") and "'cat', by its last token 't', in 'the cat sat' and" in out
    )
    assert main([*arguments, "--token", "4", "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "<title>Heads as blocks: small, step-000003, layer 1</title>" in page
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert (shown["head"], shown["position"]) == (3, 4)  # head 1 of layer 1, counted through the layers of two heads
    assert [answer["layer"] for answer in shown["answers"]] == [1] * len("the cat sat")
    assert "Sum: what the layer&#x27;s heads add" in page and "at the end" in page


def test_texts_of_our_own_that_are_too_long_are_cut_or_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It failed on every run with a context shorter than the sentences about the bank."""
    assert main(["walkthrough", str(run)]) == 0
    assert "Left out: 'They crossed the river to the bank.' has 35 tokens, more than the" in capsys.readouterr().out
    assert main(["walkthrough", str(run), "--text", "the cat sat"]) == 0
    assert "in two contexts" not in capsys.readouterr().out  # a text of one's own is not followed by another
    config = Run(run).config()
    Run(run).save_config(dataclasses.replace(config, model=dataclasses.replace(config.model, context_length=4)))
    assert main(["walkthrough", str(run)]) == 0
    assert "'h' sees 2 of 4 tokens, and" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", ""], "text is empty"),
        (["--text", "the cat", "--layer", "9"], "no layer 9"),
        (["--text", "the cat", "--token", "9"], "no token 9: the text has tokens 0 to 6"),
        (["--text", "the cat" * 9], "63 tokens, but this model sees 32 at once: give a shorter one."),
        (["--text", "the cat", "--html", "nowhere/a.html"], "cannot be written"),
        (["--text", "the cat", "--html", "README.md"], "README.md is no page: end its name with .html"),
        (["--text", "the cat", "--word", "dog"], "'dog' stands nowhere in 'the cat sat'"),
    ],
)
def test_what_a_person_can_get_wrong(
    arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["walkthrough", str(run), *CONTEXTS, *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("error: ") == 1


def test_a_word_comes_with_its_texts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was sought in texts that nobody had given."""
    assert main(["walkthrough", str(run), "--word", "cat"]) == 2
    assert "--word and --contexts belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["walkthrough", "RUN", "--text"], ["heads", "RUN", "--no_ablation", "--text"], ["generate", "RUN", "--prompt"]],
    ids=lambda arguments: arguments[0],
)
def test_words_that_are_no_tokens_are_named(
    arguments: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path)
    tokenizer = Tokenizer.train([small_text(20)], TokenizerConfig("word", 512))
    word_run = Run.create(config.out, config, tokenizer, {})
    checkpoints.save(word_run.path, small_model(tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    arguments = [str(word_run.path) if argument == "RUN" else argument for argument in arguments]
    assert main([*arguments, "the cat saw Zorro, a zebra and Zorro"]) == 0
    assert (
        "In this text the tokenizer has no token for Zorro, zebra: the model reads them in small pieces."
        in capsys.readouterr().err
    )
    assert main([*arguments, "the cat sat"]) == 0
    assert not capsys.readouterr().err
