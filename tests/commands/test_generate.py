"""The command `generate.py` on a tiny random model: what it reads, what it prints, and where."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from minitx.commands import generate
from minitx.config import ModelConfig
from minitx.generation import generate as generation
from minitx.generation.generate import Completion
from minitx.model import Transformer
from minitx.system.exits import run_command

END = 256


class ByteTokenizer:
    """A token for each byte, and one that ends a document."""

    vocab_size = 257
    end_of_document = END

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == END else bytes([token])


class TinyRun:
    """Stands for minitx.run.folder.Run: a random model with no files."""

    path = Path("runs/tiny")
    asked: ClassVar[list[object]] = []

    @staticmethod
    def find(path: str | None) -> TinyRun:
        TinyRun.asked.append(path)
        return TinyRun()

    def tokenizer(self) -> ByteTokenizer:
        return ByteTokenizer()

    def load_model(self, checkpoint: str, device: torch.device) -> tuple[Transformer, str]:
        TinyRun.asked += [checkpoint, device.type]
        torch.manual_seed(0)
        config = ModelConfig(n_layer=1, n_head=1, d_model=8, d_ff=8, context_length=16)
        return Transformer(config, vocab_size=257).eval(), "step-000007"


class Terminal(io.StringIO):
    """A standard stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def tiny_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minitx.run.folder", types.SimpleNamespace(Run=TinyRun))
    monkeypatch.setattr(TinyRun, "asked", [])


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Make every sample these bytes, a token each, and no more."""

    def script(text: bytes) -> None:
        def steps(model: object, prompt: object, options: object, **_: object) -> object:
            count = options.num_samples  # type: ignore[attr-defined]  # a GenerateConfig
            return iter([*([byte] * count for byte in text), [END] * count])

        monkeypatch.setattr(generation, "generate", steps)

    return script


def main(arguments: list[str]) -> int:
    """The exit status, as `generate.py` makes it."""
    return run_command(lambda: generate.main(arguments))


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


Says = Callable[[bytes], None]


def test_one_sample_is_prompt_and_completion(capsys: pytest.CaptureFixture[str], says: Says) -> None:
    says("héllo".encode())
    assert main(["--prompt", "Well, "]) == 0
    out, err = capsys.readouterr()
    assert out == "Well, héllo\n"
    assert err.startswith("runs/tiny, step-000007, on ") and err.count("\n") == 1
    assert TinyRun.asked[:2] == [None, "best"]


def test_a_named_run_needs_no_word(capsys: pytest.CaptureFixture[str], says: Says) -> None:
    says(b"x")
    assert main(["runs/mine", "--device", "cpu", "--checkpoint", "last"]) == 0
    assert capsys.readouterr() == ("x\n", "")
    assert TinyRun.asked == ["runs/mine", "last", "cpu"]


@pytest.mark.parametrize(("asked", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_is_that_of_weights(asked: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []
    complete = generation.complete

    def spy(model: Transformer, *arguments: Any) -> list[Completion]:
        dtypes.append(model.embedding.weight.dtype)
        return complete(model, *arguments)

    monkeypatch.setattr(generation, "complete", spy)
    assert main(["--dtype", asked, "--device", "cpu", "--max_new_tokens", "3"]) == 0
    assert dtypes == [dtype]


def test_compilation_is_announced_and_refused_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, says: Says
) -> None:
    says(b"x")
    options = ["runs/mine", "--device", "cpu", "--compile", "true"]
    assert main([*options, "--num_samples", "2"]) == 0
    assert capsys.readouterr().err == "Not compiled: for one sample only, on the CPU.\n"
    assert main([*options, "--max_new_tokens", "1"]) == 0
    assert capsys.readouterr().err == ""
    assert main(options) == 0
    assert capsys.readouterr() == ("x\n", "")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(options) == 0
    assert "Compiling, which" in screen.getvalue()


def test_a_machine_that_cannot_compile_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(*_: object, **__: object) -> object:
        raise TorchDynamoException("No working C++ compiler found\nin some place")

    monkeypatch.setattr(generation, "generate", fail)
    assert main(["runs/mine", "--device", "cpu", "--compile", "true"]) == 2
    expected = "error: torch.compile failed (No working C++ compiler found): go on without it, --compile false.\n"
    assert capsys.readouterr().err == expected


def test_several_samples_have_separators(capsys: pytest.CaptureFixture[str], says: Says) -> None:
    says(b"x")
    assert main(["--prompt", "a", "--num_samples", "2", "--stream"]) == 0
    assert capsys.readouterr().out == "--- sample 1 of 2 ---\nax\n--- sample 2 of 2 ---\nax\n"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str], says: Says) -> None:
    says("é\n\x1b\x7f\u0085.".encode())
    assert main(["--prompt", "ü", "--num_samples", "2", "--json"]) == 0
    out = capsys.readouterr().out
    lines = out.removesuffix("\n").split("\n")
    for entry in map(json.loads, lines):
        assert entry.pop("seconds") > 0 and entry.pop("tokens_per_second") > 0
        assert entry == {"prompt": "ü", "completion": "é\n\x1b\x7f\u0085.", "tokens": 9, "stop_reason": "end"}
    assert len(lines) == 2
    assert "é" in out and not {*out} - {"\n"} & {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}


def test_json_without_a_prompt_says_null(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--max_new_tokens", "5", "--seed", "3"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["prompt"] is None
    assert first["tokens"] == 5 or first["stop_reason"] == "end"
    assert main(["--json", "--max_new_tokens", "5", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["completion"] == first["completion"]


def test_text_is_streamed_when_asked(monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    says("añb".encode())
    writes: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    for option, expected in (("--stream", ["p", "a", "ñ", "b", "\n"]), ("--no-stream", ["pañb\n"])):
        writes.clear()
        monkeypatch.setattr(sys, "stdout", Pipe())
        assert main(["--prompt", "p", option]) == 0
        assert writes == expected
    writes.clear()
    assert main(["--prompt", "p"]) == 0
    assert len(writes) == 1


@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_a_terminal_gets_no_raw_control_characters(
    monkeypatch: pytest.MonkeyPatch, says: Says, tmp_path: Path, option: str
) -> None:
    """No escape sequence or change of writing direction may reach it, from a corpus or from a prompt file."""
    says("\x1b[31m\ta\r\n\u009b\x7f\u202e".encode())
    (tmp_path / "prompt").write_bytes(b"\x07:")
    terminal, errors = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["--prompt_file", str(tmp_path / "prompt"), option]) == 0
    assert terminal.getvalue() == "\\x07:\\x1b[31m\ta\\r\n\\x9b\\x7f\\u202e\n"
    assert errors.getvalue().splitlines()[-1].startswith("16 tokens, ")
    assert errors.getvalue().endswith(" tokens per second\n")


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str], says: Says) -> None:
    says(b"\x1b[31m")
    assert main([]) == 0
    assert capsys.readouterr().out == "\x1b[31m\n"


@pytest.mark.parametrize("source", ["-", "file"])
def test_a_prompt_is_read_as_it_is(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], says: Says, tmp_path: Path
) -> None:
    says(b"!")
    content = b"\xef\xbb\xbf" + "  zwölf\n".encode()
    stdin(monkeypatch, content)
    (tmp_path / "prompt.txt").write_bytes(content)
    assert main(["--prompt", "-"] if source == "-" else ["--prompt_file", str(tmp_path / "prompt.txt")]) == 0
    assert capsys.readouterr().out == "  zwölf\n!\n"


@pytest.mark.parametrize(
    "content,fault", [(b"", "empty"), (b"\xef\xbb\xbf", "empty"), (b"ab\xff", "byte 0xff in position 2")]
)
@pytest.mark.parametrize("source", ["-", "file"])
def test_a_prompt_that_is_no_text_is_an_error(
    content: bytes,
    fault: str,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    stdin(monkeypatch, content)
    (tmp_path / "prompt.txt").write_bytes(content)
    assert main(["--prompt", "-"] if source == "-" else ["--prompt_file", str(tmp_path / "prompt.txt")]) == 2
    out, err = capsys.readouterr()
    assert fault in err and out == "" and err.count("\n") == 1
    assert TinyRun.asked == []  # before a model is loaded


@pytest.mark.parametrize(
    "arguments,fault",
    [
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "ab\udcff"], "not UTF-8"),
        (["--prompt_file", "no/such/file"], "no/such/file cannot be read (No such file or directory)"),
        (["--prompt_file", "."], "cannot be read"),
        (["--interactive", "--json"], "Both --interactive and --json are given: leave one out"),
        (["--interactive", "--prompt", "a"], "--prompt are given: leave one out"),
        (["--interactive", "--attention", ""], "leave one out"),
        (["--attention", "README.md"], "README.md is no page: end its name with .html"),
        (["--attention", "folder.html"], "folder.html cannot be written: it is a folder"),
        (["--attention", ""], "The name of the page is empty"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    arguments: list[str],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert fault in err and out == "" and err.count("\n") == 1
    assert TinyRun.asked == []  # before a model is loaded


def test_a_model_that_failed_to_train_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = TinyRun.load_model

    def broken(self: TinyRun, checkpoint: str, device: torch.device) -> tuple[Transformer, str]:
        model, name = load(self, checkpoint, device)
        with torch.no_grad():
            model.output.weight.fill_(float("nan"))
        return model, name

    monkeypatch.setattr(TinyRun, "load_model", broken)
    assert main(["--prompt", "a"]) == 2
    assert "step-000007, gives logits that are not finite" in capsys.readouterr().err


def test_interactive_asks_until_the_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    says(b"yes")
    stdin(monkeypatch, b"one\n\n   \nbad \xff\ntwo\n")
    assert main(["--interactive", "--stream"]) == 0
    out, err = capsys.readouterr()
    assert out == "> one\nyes\n> \n>    \n> bad ?\n> two\nyes\n> \n"
    assert err.count("error: ") == 1 and "not UTF-8" in err


def test_several_answers_stand_under_their_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    says(b"yes")
    stdin(monkeypatch, b"one\n")
    assert main(["--interactive", "--num_samples", "2"]) == 0
    assert capsys.readouterr().out == "> one\n--- sample 1 of 2 ---\nyes\n--- sample 2 of 2 ---\nyes\n> \n"


def test_a_terminal_that_shows_what_is_typed_gets_no_prompt_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], says: Says
) -> None:
    says(b"yes")
    monkeypatch.setattr(sys, "stdin", Terminal("one\n"))
    assert main(["--interactive"]) == 0
    out, err = capsys.readouterr()
    assert out == "> yes\n> \n" and "Ctrl-D ends" in err


def test_each_interactive_prompt_is_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"one\ntwo\none\n")
    assert main(["--interactive", "--max_new_tokens", "8"]) == 0
    turns = capsys.readouterr().out.removesuffix("> \n").removeprefix("> ").split("> ")
    first, second, third = (turn.split("\n", 1)[1] for turn in turns)
    assert first == third != second


def test_interrupting_an_interactive_completion_asks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[None] = []

    def steps(*_: object, **__: object) -> object:
        calls.append(None)
        yield [ord("a")]
        if len(calls) == 1:
            raise KeyboardInterrupt
        yield [ord("b")]

    monkeypatch.setattr(generation, "generate", steps)
    stdin(monkeypatch, b"one\ntwo\n")
    assert main(["--interactive", "--stream"]) == 0
    assert capsys.readouterr().out == "> one\na\n> two\nab\n> \n"


def test_an_interrupt_at_the_prompt_asks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have been meant for a completion that ended just before."""
    answers = iter([KeyboardInterrupt, EOFError])

    def interrupted(_: str) -> str:
        raise next(answers)

    monkeypatch.setattr("builtins.input", interrupted)
    assert main(["--interactive"]) == 0


def test_interrupting_anything_else_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(*_: object, **__: object) -> object:
        yield [ord("a")]
        raise KeyboardInterrupt

    monkeypatch.setattr(generation, "generate", steps)
    assert main(["--prompt", "p", "--stream"]) == 130
    assert capsys.readouterr().out == "pa\n"


@pytest.mark.parametrize("options", [["--stream"], ["--no-stream"], ["--json"]])
def test_a_closed_pipe_ends_quietly(options: list[str], monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    says(b"text")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["--prompt", "p", "runs/tiny", *options]) == 0


def test_parsing_imports_nothing_heavy() -> None:
    """So that --help, which also imports this module, is there at once."""
    code = (
        "import sys\nfrom minitx.system.exits import run_command\n"
        "from minitx.commands.generate import main\n"
        "assert run_command(lambda: main(['--prompt_file', 'no/such/file'])) == 2\n"
        "print(sorted({'torch', 'transformers', 'sentencepiece', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
