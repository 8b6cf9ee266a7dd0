"""Command lines and YAML files: the settings they give, and the messages when they are wrong."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import types
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitx.commands.generate import parse_generate
from minitx.commands.train import parse_train
from minitx.config import Config, DataConfig, GenerateConfig, LogConfig, ModelConfig, TrainConfig, parsing
from minitx.config.parsing import load_config, new_parser, option_types, setting_names
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.exits import run_command

ROOT = Path(__file__).parents[2]


def test_settings_from_file_and_command_line(tmp_path: Path) -> None:
    """The command line wins over the file, the file over the defaults."""
    file = tmp_path / "a.yaml"
    file.write_text("seed: 5\nmodel:\n  n_layer: 3\n  n_head: 2\nlog:\n  probes: [one, two]\n")
    config, resume = parse_train(["--config", str(file), "--model.n_head", "4", "--compile", "true"], "train.py")
    assert (config.seed, config.model.n_layer, config.model.n_head, config.compile) == (5, 3, 4, True)
    assert config.log.probes == ["one", "two"]
    assert config.train == TrainConfig() and resume is None


def test_without_arguments_the_defaults_hold() -> None:
    assert parse_train([], "train.py") == (Config(), None)
    assert parse_generate([], "generate.py")[0] == GenerateConfig()


def test_a_written_configuration_reads_back(tmp_path: Path) -> None:
    config = Config(seed=3, threads=2, compile=False, data=DataConfig(source="a: b #c"), model=ModelConfig(n_kv_head=2))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(attention="latent", d_latent=8, d_rotary=2),
        ModelConfig(n_layer=3, n_kv_head=2, kept_heads=[[0, 2, 3], [], [1]]),
    ],
)
def test_a_written_model_of_another_kind_reads_back(model: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(Config(model=model).to_dict()))
    assert load_config(tmp_path / "config.yaml").model == model


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configurations_load(file: Path) -> None:
    assert load_config(file).out == f"runs/{file.stem}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model.n_heads", "4"], "no option --model.n_heads (did you mean --model.n_head?)"),
        (["--model.n_head", "four"], "model.n_head is 'four', but it takes a whole number"),
        (["--model.n_head", "7"], "model.n_head is 7"),
        (["--train.optimizer", "sgd"], "train.optimizer is 'sgd', but it takes muon or adamw"),
        (["--compile", "maybe"], "compile is 'maybe', but it takes auto or true or false"),
        (["--threads", "x"], "threads is 'x', but it takes auto or a whole number"),
        (["--log.probes", "text"], "log.probes is 'text', but it takes a list"),
        (["--train", "x"], "train is a section of settings"),
        (["--seed", "1:30"], "seed is '1:30', but it takes a whole number"),
        (["--data.seed", "true"], "data.seed is 'true', but it takes a whole number or null"),
        (["--seed"], "--seed takes one value: see --help."),
        (["extra"], "There is no place for extra: see --help."),
        (["--config", "nowhere.yaml"], "no configuration nowhere.yaml"),
        (["--resume", "nowhere"], "no run in nowhere to resume"),
        (["--train.learning_rate", "1e999"], "train.learning_rate is inf, but it must be above 0 and a finite number"),
        *[
            ([option, value], "a number with too many digits: give a shorter one")
            for option in ("--seed", "--train.learning_rate")
            for value in ("9" * 5000, "0x" + "f" * 5000)
        ],
        (["--seed", "1:" * 3000 + "1"], f"seed is '{'1:' * 20}', but it takes a whole number"),
        (["--train.learning_rate", "1:30:00"], "train.learning_rate is '1:30:00', but it takes a number"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_train(arguments, "train.py")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_the_private_parts_of_jsonargparse_that_good_messages_need() -> None:
    """Fails where a new version of jsonargparse drops what `option_types` reads; messages are then its own."""
    parser = new_parser("train.py", Config)
    assert hasattr(parser, "_actions"), "jsonargparse dropped ArgumentParser._actions: no hint for a mistyped option"
    with_type = [action for action in parser._actions if hasattr(action, "_typehint")]
    assert with_type, "jsonargparse dropped _typehint of an option: messages no longer say what type a value needs"
    assert option_types(parser)["model.n_head"] is int and set(setting_names(Config)) <= option_types(parser).keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model.n_heads", "4"], "There is no option --model.n_heads: see --help."),
        (["--model.n_head", "four"], 'Parser key "model.n_head": Expected a .* Got value: four: see --help.'),
    ],
)
def test_without_private_parts_messages_are_those_of_jsonargparse(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_parts = option_types(typing.cast(typing.Any, types.SimpleNamespace()))
    monkeypatch.setattr(parsing, "option_types", lambda parser: without_parts)
    with pytest.raises(UserError, match=sentence):
        parse_train(arguments, "train.py")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"model:\n  n_heads: 4\n", "no setting model.n_heads in "),
        (b"modle:\n  n_head: 4\n", "(did you mean model?)"),
        (b"model: 3\n", "model in "),
        (b"model: null\n", "model in "),
        (b"model: {qk_norm: null}\n", "model.qk_norm is null, but it takes true or false"),
        (b"model: {n_layer: 686430}\n", "model.n_layer is 686430, but it must be at most 1000"),
        (b"resume: x\n", "no setting resume in "),
        (b"seed: &a 1\n", "an anchor, an alias or a tag (line 1)"),
        (b"out: ! x\n", "an anchor, an alias or a tag (line 1)"),
        (b"seed: 1\nlog:\n  <<: *a\n", "an anchor, an alias or a tag (line 3)"),
        (b"model:\n  n_head: four\n", "model.n_head is 'four'"),
        (b"model: [\n", "not valid YAML (line 2)"),
        (b"3\n", "holds no settings"),
        (b"\xff\xfe\x00", "not UTF-8 text (byte 0)"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nlog:\n  probes: [*b, *b]\n", "an anchor, an alias or a tag (line 1)"),
        (b"seed: !!python/object/apply:os.system ['true']\n", "an anchor, an alias or a tag (line 1)"),
        (b"log:\n  probes: " + b"[" * 50_000, "more than 10 levels (line 2)"),
        (b"a: " * 12 + b"1\n", "not valid YAML"),
        (
            b"log:\n  probes: [" + b"x" * 10_000_000 + b"]\n",
            "cannot be read: it has 10,000,018 bytes, but at most 131,072",
        ),
        (b"seed: " + b"9" * 5000 + b"\n", "has the number 99999999999999999999 (line 1): write a shorter one"),
        (b"train:\n  learning_rate: " + b"9" * 400 + b"\n", "has the number 99999999999999999999 (line 2)"),
        (b"seed: 1:30:00\n", "has the number 1:30:00 (line 1): write a shorter one without colons"),
        (b"seed: " + b"1:" * 3000 + b"1\n", "has the number 1:1:1:1:1:1:1:1:1:1: (line 1)"),
        (b"seed: 0x" + b"f" * 5000 + b"\n", "has the number 0xffff"),
        (b"seed: 1\nmodel:\n  n_layer: 1\n  n_layer: 2\n", "sets n_layer a second time (line 4): leave one out"),
        (b"? [a, b]\n: 1\n", "not valid YAML"),
        (b"seed: 2020-13-45\n", "holds a value that cannot be read"),
        (b"model:\n  d_model: 1000000000000\n", "model.d_model is 1000000000000, but it must be at most"),
    ],
)
def test_mistakes_in_a_file(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        parse_train(["--config", str(tmp_path / "a.yaml")], "train.py")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "prompt", ["null", "3", "[1, 2]", "{a: b}", "~", "#c", " lead", "'q'", "!!x", "\n", "-", "-5", "é\t"]
)
def test_a_prompt_is_text_whatever_it_looks_like(prompt: str) -> None:
    """Guards against YAML reading the prompt: null and ~ became no prompt at all."""
    assert parse_generate([f"--prompt={prompt}"], "generate.py")[0].prompt == prompt


def test_flags_of_generate() -> None:
    config, flags = parse_generate(["runs/x", "--json", "--no-stream", "--stop", "###", "--top_k", "5"], "generate.py")
    assert (flags.run, flags.json, flags.interactive, flags.stream) == ("runs/x", True, False, False)
    assert (config.stops, config.top_k) == (["###"], 5)
    assert parse_generate([], "generate.py")[1].stream is None


def test_a_mistake_ends_with_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UserError("What was wrong.")

    assert run_command(fail) == 2
    assert capsys.readouterr() == ("", "error: What was wrong.\n")


@pytest.mark.parametrize("script", ["train.py", "generate.py"])
def test_help_explains_every_key_without_torch_or_datasets(script: str) -> None:
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'torch', 'datasets', 'numpy', 'tensorboard', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings = Config if script == "train.py" else GenerateConfig
    explained = " ".join(done.stdout.split())
    for key in setting_names(settings):
        start = explained.index(f"--{key} ")
        assert len(explained[start:].split(" (type:")[0]) > len(key) + 15, f"{key} has no explanation"


@pytest.mark.parametrize("verb", ["compare", "prune"])
def test_help_of_a_verb_comes_without_torch(verb: str) -> None:
    code = (
        "import sys; from minitx.__main__ import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(str({'torch', 'datasets', 'numpy', 'tensorboard', 'matplotlib'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0" and "--heads LIST" in done.stdout


def test_help_is_much_quicker_than_torch() -> None:
    """The issue's limit is a quarter; a generous half here, for a noisy machine."""

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - began

    helping = min(seconds("train.py", "--help") for _ in range(2))
    importing = min(seconds("-c", "import torch") for _ in range(2))
    assert helping < importing / 2


@given(
    st.builds(
        Config,
        out=st.text(min_size=1),
        seed=st.integers(0, 2**63 - 1),
        threads=st.one_of(st.just("auto"), st.integers(1, 99)),
        compile=st.sampled_from(["auto", True, False]),
        data=st.builds(
            DataConfig, source=st.text(min_size=1), name=st.none() | st.text(), val_fraction=st.floats(1e-9, 0.999)
        ),
        train=st.builds(
            TrainConfig,
            learning_rate=st.floats(1e-300, 1e300),
            beta1=st.floats(0, 0.9999),
            sample_prompt=st.none() | st.text(min_size=1),
        ),
        log=st.builds(LogConfig, probes=st.lists(st.text(min_size=1), max_size=3)),
    )
)
@settings(deadline=None, max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_comes_back_from_its_run(config: Config) -> None:
    """Dataclass → YAML → dataclass, whatever text or number is in it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.write_json("data.json", {})
        run.save_config(config)
        assert run.config() == config
