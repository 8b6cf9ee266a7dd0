"""Every suite on a model of a few thousand parameters: that it says what it should, never how fast anything is."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.bench import parts, peak, steps
from minitx.bench.peers import transformers as peers
from minitx.bench.suites import ceiling, data, generate, gpu, scaling, train
from minitx.bench.tables import Table
from minitx.system import timing
from minitx.system.errors import UserError
from minitx.system.memory import memory_bytes
from tests.bench.small import TINY, cpu, nano_gpt_checkout, quick
from tests.small import small_text

LLAMA_THERE = peers.why_no_transformers() is None


@pytest.fixture(autouse=True)
def short_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed matters here, not how well."""
    monkeypatch.setattr(timing, "SHORTEST", 1e-4)


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(small_text(), "utf-8")
    return str(file)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in a process of its own, which takes seconds to import torch; one test does that."""
    for module in (train, scaling, gpu):
        monkeypatch.setattr(module, "peak_memory", lambda *arguments: {"peak": 3_000_000, "before": 1_000_000})


def column(table: Table, name: str) -> list[Any]:
    return [row[list(table.columns).index(name)] for row in table.rows]


# Steps


@pytest.mark.parametrize("kind", [steps.OURS, steps.OURS_ADAMW, steps.LLAMA, steps.ENCODER, steps.NANO_GPT])
def test_every_candidate_takes_a_step(kind: str, tmp_path: Path) -> None:
    if kind == steps.LLAMA:
        pytest.importorskip("transformers", reason="transformers is a test extra")
    step = steps.build(kind, TINY, cpu(), str(nano_gpt_checkout(tmp_path)))
    first, second = step(), step()
    assert isinstance(first, torch.Tensor) and torch.isfinite(first)
    assert isinstance(second, torch.Tensor) and not torch.equal(first, second)  # the next batch


def test_a_timed_step_changes_no_weight_and_yet_has_gradients() -> None:
    """Else a long measurement would train, and may diverge on tokens without order."""
    step, model = steps.our_step(TINY, cpu(), steps.random_tokens(TINY, 0), 0)
    before = [parameter.clone() for parameter in model.parameters()]
    step()
    step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_plain_step_updates(tmp_path: Path) -> None:
    loss_of, model, optimizer = steps.peer(steps.ENCODER, TINY, cpu(), None)
    optimizer.param_groups[0]["lr"] = 0.01
    before = model.output.weight.clone()
    draw = steps.RandomBatches(steps.random_tokens(TINY, 0), TINY, torch.device("cpu")).next
    steps.plain_step(loss_of, list(model.parameters()), optimizer, draw, cpu(), TINY.train)
    assert not torch.equal(before, model.output.weight)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_random_batches_are_windows_and_what_follows() -> None:
    inputs, targets = steps.RandomBatches(steps.random_tokens(TINY, 0), TINY, torch.device("cpu")).next()
    assert inputs.shape == targets.shape == (2, 16)
    assert inputs.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "why_no_transformers", lambda: "transformers is not installed.")
    kinds, notes = steps.kinds(None)
    assert kinds == [steps.OURS, steps.OURS_ADAMW, steps.ENCODER]
    assert len(notes) == 2


# train


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the process finds this very code from anywhere
    found = peak.peak_memory(steps.OURS, TINY, cpu(), None)
    assert 50e6 < found["before"] < found["peak"] < 2e9


def test_the_peak_is_not_handed_down_from_the_parent() -> None:
    """Linux gives a child its parent's peak in getrusage; a large parent would hide every candidate."""
    ballast = torch.ones(300_000_000 // 4)
    code = "import torch; from minitx.system.memory import memory_bytes as m; print(m(torch.device('cpu')))"
    done = os.popen(f'"{sys.executable}" -c "{code}"').read()
    assert ballast.sum() > 0
    assert int(done) < memory_bytes(torch.device("cpu")) - 100_000_000


def test_a_process_that_fails_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"memory of nanoGPT.*no model\.py"):
        peak.peak_memory(steps.NANO_GPT, TINY, cpu(), str(tmp_path))


@pytest.mark.usefixtures("no_processes")
def test_train_compares_all_there_are(tmp_path: Path) -> None:
    table = train.speed(quick(nanogpt=str(nano_gpt_checkout(tmp_path))), TINY, cpu())
    names = column(table, "candidate")
    assert names[:2] == [steps.OURS, steps.OURS_ADAMW]
    assert names[-2:] == [steps.ENCODER, steps.NANO_GPT]
    assert (steps.LLAMA in names) == LLAMA_THERE
    base = steps.LLAMA if LLAMA_THERE else steps.ENCODER
    assert column(table, "× by best")[names.index(base)] == 1.0
    assert all(len(each["seconds"]) == 2 for each in table.raw["seconds"].values())


def test_the_parts_add_up_to_the_step(text: str) -> None:
    settings = quick(text=text)
    prepared = parts.text_for(settings, TINY)
    shape = dataclasses.replace(TINY, vocab_size=prepared.tokenizer.vocab_size)
    found = parts.step_parts(shape, cpu(), prepared, repeats=5, seconds=1)
    assert sum(found["parts"].values()) == pytest.approx(found["whole"])
    assert all(took > 0 for took in found["parts"].values())
    assert tuple(found["parts"]) == parts.PARTS


def test_time_by_part_shares_out_everything(text: str) -> None:
    table = train.time_by_part(quick(text=text), TINY, cpu())
    assert column(table, "part") == [
        *parts.PARTS,
        "logging: metrics",
        "logging: snapshots of heads",
        "logging: pictures of heads",
        "together",
    ]
    shares = column(table, "share, %")
    assert sum(shares[:-1]) == pytest.approx(100)
    for name, per_step in zip(column(table, "part")[4:-1], column(table, "ms per step")[4:-1], strict=True):
        raw = table.raw["logging"][name.removeprefix("logging: ")]
        assert per_step == pytest.approx(1e3 * raw["seconds"] / raw["every"])


def test_a_run_without_pictures_of_heads(text: str) -> None:
    shape = dataclasses.replace(TINY, log=dataclasses.replace(TINY.log, heads_every=0, snapshots_every=0))
    assert list(parts.logging_parts(shape, cpu(), parts.text_for(quick(text=text), shape))) == ["metrics"]


# generate


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_generate_has_every_work(dtype: str) -> None:
    tables = list(generate.run(quick(dtype=dtype), [TINY], cpu() if dtype == "auto" else bfloat16()))
    assert len(tables) == (2 if dtype == "auto" else 1)
    for table in tables:
        works = list(dict.fromkeys(column(table, "work")))
        assert works == [
            "decode 16, batch 1",
            "decode 16, batch 8",
            "decode 16 without cache, batch 1",
            "prefill 15, batch 1",
            "prefill 15, batch 8",
        ]
    assert "float32" in tables[0].title or dtype != "auto"
    if dtype == "auto":
        assert set(column(tables[0], "same tokens")) == {"yes"}


def bfloat16() -> Any:
    return dataclasses.replace(cpu(), dtype=torch.bfloat16)


def test_with_and_without_cache_is_the_same_text() -> None:
    shape = TINY.as_llama()
    model = generate.model_of(shape, 0)
    work = generate.Work("", [1], 16, batch=2)
    assert generate.ours_does(model, dataclasses.replace(work, cached=False))() == generate.ours_writes(model, work)


def test_llama2c_takes_part_by_its_own_clock(tmp_path: Path) -> None:
    """With a stand-in that writes what minitx writes and claims 1,000 tokens a second."""
    shape = TINY.as_llama()
    tokens = generate.ours_writes(generate.model_of(shape, 1337), generate.Work("", [1], 16))[0]
    program = tmp_path / "run"
    said = "\\n".join(map(str, tokens))
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint('''{said}''')\nprint('achieved tok/s: 1000', file=sys.stderr)\n"
    )
    program.chmod(0o755)
    table = generate.compare(quick(llama2c=str(program)), shape, cpu(), torch.float32)
    row = next(row for row in table.rows if row[1] == generate.LLAMA2C)
    assert row[0] == "decode 16, batch 1"
    assert row[2:4] == [pytest.approx(1000), pytest.approx(1000)]
    assert any("without OpenMP" in note for note in table.notes)
    program.write_text(program.read_text().replace(f"'''{said}", "'''5\\n5"))
    with pytest.raises(UserError, match="writes another text"):
        generate.compare(quick(llama2c=str(program)), shape, cpu(), torch.float32)


def test_texts_that_part_are_refused_in_float32_and_told_in_bfloat16() -> None:
    work = generate.Work("decode", [1], 3)
    assert generate.require_same([[4, 5, 6]], [[4, 5, 6]], "It", work, torch.float32) == "yes"
    assert generate.require_same([[4, 5, 6]], [[4, 9, 6]], "It", work, torch.bfloat16) == "first 1"
    with pytest.raises(UserError, match="after 1 equal tokens"):
        generate.require_same([[4, 5, 6]], [[4, 9, 6]], "It", work, torch.float32)


# data, ceiling, scaling, gpu


def test_data(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SIZE", 1 << 16)
    before = os.environ["XDG_CACHE_HOME"]
    (table,) = data.run(quick(text=text), [], dataclasses.replace(cpu(), threads=2))
    assert os.environ["XDG_CACHE_HOME"] == before
    assert column(table, "candidate") == [
        data.BASE,
        "SentencePiece, blocks to arrays, 2 threads",
        "SentencePiece, lines to lists, 1 thread",
        "minitx prepare, 1 thread",
        "minitx prepare, 2 threads",
    ]
    assert table.raw["bytes"] >= 1 << 16


def test_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceiling.SIZES, "cpu", (16, 32))
    monkeypatch.setitem(ceiling.COPIED, "cpu", 1 << 12)
    machine, use = ceiling.run(quick(), [TINY], cpu())
    kinds = [(str(dtype).removeprefix("torch."), by) for dtype, by in ceiling.ways(torch.device("cpu"))]
    assert [kind for kind in kinds if kind[1] != "oneDNN"] == [("float32", "torch.mm"), ("bfloat16", "torch.mm")]
    found = list(zip(column(machine, "precision"), column(machine, "by"), strict=True))
    assert found == [kind for kind in kinds for _ in range(4)]
    assert "tiny, logits: 32 × 16 × 61" in column(machine, "what")
    (row,) = use.rows
    assert row[1] == ceiling.flops_per_token(TINY) / 1e6
    assert row[3] == pytest.approx(float(str(row[1])) * float(str(row[2])) / 1e3)  # MFLOP × tokens/s → GFLOP/s


def test_flops_of_a_product() -> None:
    assert ceiling.flops((2, 3, 5)) == 60


@pytest.mark.usefixtures("no_processes")
def test_scaling_stands_beside_theory() -> None:
    tables = dict(zip(scaling.AXES, scaling.run(quick(), [TINY], cpu()), strict=True))
    assert column(tables["context"], "context") == ["4", "8", "16 (as it is)", "32", "64"]
    assert column(tables["heads"], "heads") == ["1", "2 (as it is)", "4", "8"]  # 16 heads would be 1 wide
    assert column(tables["batch"], "batch") == ["1", "2 (as it is)", "4", "8"]
    assert column(tables["heads"], "× in FLOPs") == [1.0] * 4
    assert column(tables["batch"], "× in FLOPs") == [0.5, 1.0, 2.0, 4.0]
    for table in tables.values():
        assert column(table, "cache, KB") == column(table, "by formula, KB")
        assert set(column(table, "training memory, MB")) == {2.0}


@pytest.mark.usefixtures("no_processes")
def test_the_table_for_a_gpu_on_a_cpu(tmp_path: Path) -> None:
    settings = quick(nanogpt=str(nano_gpt_checkout(tmp_path)))
    table = gpu.measure(settings, [TINY], bfloat16(), sizes=[16, 32], copied=1 << 12)
    assert [str(what).split(",")[0] for what in column(table, "what")] == [
        "matrix product",
        "copy",
        "step",
        "step",
        "decode 16",
    ]
    assert column(table, "× nanoGPT")[3] == 1.0
    assert column(table, "% of limit")[2] > 0
    assert column(table, "peak memory, GB")[2] == 0.002
    json.dumps(table.as_json(), allow_nan=False)


def test_gpu_without_a_gpu_is_a_sentence() -> None:
    with pytest.raises(UserError, match="needs a CUDA device, but this run is on cpu"):
        list(gpu.run(quick(), [], cpu()))
