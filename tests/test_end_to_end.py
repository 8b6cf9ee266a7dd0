"""What a user does, in separate processes: train, resume, generate, read TensorBoard's file, export."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minitx.heads.snapshots import read_header, steps
from minitx.run.folder import Run
from minitx.run.logs import HEADS_FILE
from tests.heads.test_snapshots import read_patterns
from tests.small import small_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a configuration and a run of 12 steps in runs/small."""
    folder = tmp_path_factory.mktemp("person")
    config = small_config(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump({**config.to_dict(), "out": "runs/small"}))
    done = minitx(folder, "train.py", "--config", "small.yaml")
    assert done.returncode == 0, done.stderr
    assert "--- sample at step 12 ---" in done.stdout
    assert "tensorboard --logdir runs" in done.stdout
    return folder


def minitx(folder: Path, script: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of the scripts, or the package, in `folder` as a user would."""
    command = ["-m", "minitx"] if script == "minitx" else [str(ROOT / script)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_run_folder_is_as_designed(folder: Path) -> None:
    run = folder / "runs" / "small"
    assert {file.name for file in run.iterdir() if "tfevents" not in file.name} == {
        "attention",
        "config.yaml",
        "tokenizer.model",
        "data.json",
        "metrics.jsonl",
        "heads.jsonl",
        "checkpoints",
        "summary.json",
        "weights",
    }
    assert (run / "checkpoints" / "last").read_text() == "step-000012"
    assert {file.name for file in (run / "checkpoints" / "step-000012").iterdir()} == {
        "model.safetensors",
        "optimizer.pt",
        "state.json",
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["threads"] == 1


def test_the_event_file_holds_curves_pictures_scores_and_texts(folder: Path) -> None:
    events = EventAccumulator(str(folder / "runs" / "small"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    run = Run(folder / "runs" / "small")
    curve = {event.step: event.value for event in events.Scalars("Loss/train")}
    assert curve == pytest.approx({line["step"]: line["train_loss"] for line in run.metrics()}, rel=1e-6)
    assert [event.step for event in events.Scalars("Loss/validation")] == [6, 12]
    for score in ("entropy", "induction", "previous token"):
        assert {f"heads: {score}/layer {layer}, highest" for layer in range(2)} <= {*tags["scalars"]}
    assert not [tag for tag in tags["scalars"] if tag.startswith("layer")]
    pictures = {tag for tag in tags["tensors"] if tag.startswith("“")}
    assert pictures == {f"“{probe}”/layer {layer}" for probe in ("the cat sat.", "rain fell") for layer in range(2)}
    assert [event.step for event in events.Tensors("“the cat sat.”/layer 1")] == [6, 12]
    texts = {}
    for tag in ("Run/configuration", "Run/model card"):
        texts[tag] = unescape(events.Tensors(tag)[-1].tensor_proto.string_val[0].decode())
    assert "context_length: 32" in texts["Run/configuration"]
    assert "| layers × heads | 2 × 2 |" in texts["Run/model card"]
    assert [event.step for event in events.Tensors("Sample")] == [6, 12]


def test_generate_writes_what_the_seed_says(folder: Path) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        done = minitx(folder, "generate.py", "--prompt", "the cat", "--max_new_tokens", "30", "--seed", seed)
        assert done.returncode == 0, done.stderr
        assert "runs/small" in done.stderr.replace(os.sep, "/")
        texts.append(done.stdout)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the cat")


def test_generate_speaks_json(folder: Path) -> None:
    done = minitx(
        folder, "generate.py", "runs/small", "--prompt", "-", "--json", "--num_samples", "3", "--max_new_tokens", "5",
        stdin="the dog",
    )  # fmt: skip
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(samples) == 3
    assert {sample["prompt"] for sample in samples} == {"the dog"}
    assert all(
        sample.keys() == {"prompt", "completion", "tokens", "seconds", "tokens_per_second", "stop_reason"}
        for sample in samples
    )


def test_generate_writes_what_the_heads_attend_to(folder: Path) -> None:
    done = minitx(folder, "generate.py", "--prompt", "the cat", "--max_new_tokens", "5", "--attention", "heads.html")
    assert done.returncode == 0, done.stderr
    data = json.loads((folder / "heads.html").read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    (content,) = (base64.b64decode(snapshot) for snapshot in data["snapshots"])
    header = read_header(io.BytesIO(content))
    assert header["step"] == 12 and header["probes"][0]["text"] == done.stdout.removesuffix("\n")
    tokenizer = Run(folder / "runs" / "small").tokenizer()
    labels = tokenizer.token_labels(tokenizer.encode(header["probes"][0]["text"]))
    assert header["probes"][0]["tokens"] == labels[-32:]
    assert read_patterns(content).shape == (2, 2, len(labels[-32:]), len(labels[-32:]))


def test_resume_goes_on(folder: Path) -> None:
    run = folder / "runs" / "small"
    assert steps(run) == [12]
    (run / "attention" / "step-000013.heads").write_bytes(b"of a life that did not happen")
    done = minitx(folder, "train.py", "--resume", "runs/small", "--train.steps", "14")
    assert done.returncode == 0, done.stderr
    assert "going on from step 12" in done.stdout
    assert [line["step"] for line in Run(run).metrics()] == list(range(1, 15))
    assert [line["step"] for line in Run(run).metrics(HEADS_FILE)] == [6, 12, 14]
    assert steps(run) == [12, 14]


def test_a_run_folder_copied_elsewhere_still_works(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "runs" / "small", tmp_path / "moved")
    done = minitx(tmp_path, "generate.py", "moved", "--prompt", "the", "--max_new_tokens", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the")


@pytest.mark.slow
def test_export_and_import_give_the_same_text(folder: Path) -> None:
    exported = minitx(folder, "minitx", "export", "runs/small", "exported")
    assert exported.returncode == 0, exported.stderr
    imported = minitx(folder, "minitx", "import", "exported", "imported")
    assert imported.returncode == 0, imported.stderr
    texts = [
        minitx(folder, "generate.py", run, "--prompt", "the", "--temperature", "0", "--max_new_tokens", "20").stdout
        for run in ("runs/small", "imported")
    ]
    assert texts[0] == texts[1] != ""


def test_data_says_what_the_text_holds(folder: Path) -> None:
    done = minitx(folder, "minitx", "data", "--config", "small.yaml")
    assert done.returncode == 0, done.stderr
    described = json.loads((folder / "runs" / "small" / "data.json").read_text())
    assert described["fingerprint"] in done.stdout and f"{described['train_tokens']:,}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate.py", "runs/nowhere"], "There is no run runs/nowhere"),
        (["generate.py", "--prompt", ""], "prompt is empty"),
        (["generate.py", "--prompt", "a", "--device", "cuda:7"], "Device 'cuda:7' is not there"),
        (["generate.py", "--prompt_file", "nowhere.txt"], "nowhere.txt"),
        (["generate.py", "--prompt", "a", "--attention", "nowhere/a.html"], "its folder is not there"),
        (["generate.py", "--interactive", "--attention", "a.html"], "leave one out"),
        (["generate.py", "--checkpoint", "7", "--prompt", "a"], "keeps no checkpoint 7"),
        (["train.py", "--data.source", "nowhere.txt"], "nowhere.txt"),
        (["train.py", "--data.source", "empty.txt"], "empty"),
        (["train.py", "--data.source", "short.txt", "--tokenizer.type", "char"], "context_length"),
        (["train.py", "--data.source", "rows.csv"], "body"),
        (["train.py", "--model.n_heads", "4"], "did you mean --model.n_head?"),
        (["train.py", "--model.n_layer", "many"], "model.n_layer is 'many', but it takes a whole number"),
        (["train.py", "--model.n_head", "5"], "take 4 or 8"),
        (["train.py", "--device", "tpu"], "Device 'tpu' is not there"),
        (["train.py", "--data.source", "some/name"], "some/name"),
        (["train.py", "--resume", "nowhere"], "There is no run in nowhere"),
        (["minitx", "trian"], "did you mean train?"),
    ],
)
def test_what_a_person_can_get_wrong_ends_with_a_sentence(arguments: list[str], sentence: str, folder: Path) -> None:
    """Exit status 2 and one line, no traceback. There is no network here, or a Hub name that does not exist."""
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("A few words.")
    (folder / "rows.csv").write_text("title,body\n" + "a,some text\n" * 50)
    done = minitx(folder, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
