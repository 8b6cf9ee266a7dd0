"""Models of others as runs: every use of a run works on them, and a series of checkpoints has a step for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minitx.__main__ import main
from minitx.heads import snapshots
from minitx.run.folder import Run
from minitx.tensorboard.text_process import Models, answer
from tests.small import small_text
from tests.tensorboard.test_plugin import application, ask

transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

from tests.interop.foreign import save_model, save_tokenizer, small_qwen  # noqa: E402  (after the skip)


def verb(command: str) -> int:
    return main(command.split())


@pytest.mark.slow
def test_every_use_of_an_imported_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Import, generate, heads, walkthrough, own text in the tab, export, training on; none asks for tokenizer.model."""
    monkeypatch.chdir(tmp_path)
    theirs = save_model(Path("theirs"))
    assert len([*Path("theirs").glob("*.safetensors")]) > 1
    assert verb("import theirs runs/a") == 0
    for command in (
        "generate runs/a --prompt cat --max_new_tokens 3 --attention page.html",
        "heads runs/a --text_file theirs/tokenizer_config.json --no_ablation",
        "walkthrough runs/a",
        "walkthrough runs/a --html walk.html",
        "export runs/a again",
    ):
        assert verb(command) == 0, command
    # Export gives back what was there.
    ours, again = Run.find("runs/a"), transformers.AutoModelForCausalLM.from_pretrained("again").eval()
    assert Path("again/tokenizer.json").read_bytes() == Path("theirs/tokenizer.json").read_bytes()
    before = {name: weight.float() for name, weight in theirs.state_dict().items() if name != "lm_head.weight"}
    exported = load_file("again/model.safetensors")
    assert exported.keys() == before.keys() and all(torch.equal(exported[name], before[name]) for name in before)
    model, tokenizer = ours.load_model("best", torch.device("cpu"))[0], ours.tokenizer()
    tokens = torch.tensor([tokenizer.encode("The cat didn't see 1234 naïve dogs.")])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), again(tokens).logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(tokens), theirs.float()(tokens).logits, rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained("again")("a cat <|endoftext|>").input_ids == tokenizer.encode(
        "a cat <|endoftext|>"
    )
    # The Attention tab lists it, and runs a text of its reader.
    tab = application("--logdir", "runs")
    assert "a" in json.loads(ask(tab, "runs").data)["runs"]
    asked = {"run": "runs/a", "step": 0, "text": "the cat sat on a naïve mat", "question": "snapshot"}
    assert answer(Models(), asked).startswith(snapshots.MAGIC)
    for question in (
        {"question": "without", "heads": [1, 6], "how": "mean"},
        {"question": "blocks", "layer": 1, "position": 2},
    ):
        assert json.loads(answer(Models(), asked | question))
    # Training goes on from its weights.
    Path("text.txt").write_text(small_text(100))
    settings = "--data.source text.txt --device cpu --threads 1 --train.batch_size 2 --model.context_length 32"
    settings += " --train.steps 2 --train.optimizer adamw --train.learning_rate 1e-6"
    settings += " --train.embedding_learning_rate null --out runs/b --log.probes [cat]"
    capfd.readouterr()
    assert verb(f"train --init_from runs/a {settings}") == 0
    tuned = Run.find("runs/b").load_model("last", torch.device("cpu"))[0]
    assert tuned.config.context_length == 32 and tuned.config.head_width == 8
    for name, weight in model.named_parameters():
        torch.testing.assert_close(tuned.get_parameter(name), weight, rtol=0, atol=1e-4)
    assert not torch.equal(tuned.embedding.weight, model.embedding.weight)
    assert verb(f"train --init_from runs/a --model.n_layer 3 {settings}") == 2
    assert "--init_from keeps model.n_layer of runs/a, which is 2: leave it out" in capfd.readouterr().err
    assert verb("train --resume runs/b --init_from runs/c") == 2
    assert "A resumed run keeps its init_from settings" in capfd.readouterr().err
    # A run that was killed before its first checkpoint begins again from the same weights.
    for checkpoint in Path("runs/b/checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    Path("runs/b/summary.json").unlink()
    assert verb("train --resume runs/b") == 0
    again_tuned = Run.find("runs/b").load_model("last", torch.device("cpu"))[0]
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), again_tuned.parameters(), strict=True))


@pytest.mark.slow
def test_a_series_of_checkpoints_is_one_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, run = tmp_path / "theirs", tmp_path / "runs" / "a"
    for step in (1000, 20, 0):
        small_qwen(seed=step).save_pretrained(folder / f"checkpoint-{step}")
    save_tokenizer(folder)
    (folder / "logs").mkdir()
    assert main(["import", str(folder), str(run), "--series", "--context_length", "32"]) == 0
    assert snapshots.steps(run) == [0, 20, 1000]
    with snapshots.open_snapshot(run, 20) as (_, header):
        assert header["scored_on"] == "tales" and {"induction", "importance"} <= {*header["scores"]}
        assert header["probes"][0]["text"].startswith("The man saw")
    for step in (0, 20, 1000):
        model, _ = Run.find(str(run)).load_model(str(step), torch.device("cpu"))
        theirs = small_qwen(seed=step)
        assert model.config.context_length == 32
        torch.testing.assert_close(model.output.weight, theirs.lm_head.weight, rtol=1e-3, atol=1e-4)  # some in float16
    assert Run.find(str(run)).load_model("last", torch.device("cpu"))[1] == "step-001000"
    tab = application("--logdir", str(run.parent))
    assert json.loads(ask(tab, "run", run="a").data)["steps"] == [0, 20, 1000]
    capfd.readouterr()
    other = folder / "checkpoint-1000"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert main(["import", str(folder), str(run), "--series"]) == 2
    assert "checkpoint-1000 holds another model or tokenizer" in capfd.readouterr().err
    assert main(["import", str(folder / "logs"), str(run), "--series"]) == 2
    assert "logs holds no series: its folders must be called checkpoint-500" in capfd.readouterr().err
