"""Every suite on a model of a few thousand parameters: are its tables right? No test asserts a speed."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.bench import peak, steps
from minitx.bench.peers import nanogpt, transformers
from minitx.bench.suite import Table
from minitx.bench.suites import ceiling, data, generate, scaling, train
from minitx.model import Transformer
from minitx.system import timing
from minitx.system.errors import UserError
from minitx.system.memory import memory_bytes
from minitx.training.optim import set_learning_rate
from tests.bench.small import TINY, bench, cpu, nano_gpt_checkout
from tests.small import small_text

LLAMA_THERE = transformers.why_not() is None


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
    for module in (train, scaling):
        monkeypatch.setattr(module, "peak_memory", lambda *arguments: {"peak": 3_000_000, "before": 1_000_000})


def column(table: Table, name: str) -> list[Any]:
    return [row[name] for row in table.rows]


def test_candidates_are_timed_on_the_device_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a GPU would still be at work when the clock stops."""
    waited: list[str] = []
    monkeypatch.setattr(timing, "synchronise", lambda device: waited.append(str(device)))
    on_gpu = dataclasses.replace(cpu(), device=torch.device("cuda"))
    bench(TINY, on_gpu).time({"a": lambda: None}, "a")
    assert len(waited) >= 4 and set(waited) == {"cuda"}


# Steps


@pytest.mark.parametrize("kind", [steps.OURS, steps.OURS_ADAMW, steps.LLAMA, steps.NANO_GPT])
def test_every_candidate_takes_a_step(kind: str, tmp_path: Path) -> None:
    if kind == steps.LLAMA:
        pytest.importorskip("transformers", reason="transformers is a test extra")
    step = steps.build(bench(nanogpt=str(nano_gpt_checkout(tmp_path))), kind, TINY).step
    first, second = step(), step()
    assert isinstance(first, torch.Tensor) and torch.isfinite(first)
    assert isinstance(second, torch.Tensor) and not torch.equal(first, second)  # the next batch


@pytest.mark.parametrize("kind", [steps.OURS, steps.LLAMA, steps.NANO_GPT])
def test_only_a_timed_step_changes_no_weight(kind: str, tmp_path: Path) -> None:
    """Else a long measurement would train, and may diverge on tokens without order."""
    if kind == steps.LLAMA:
        pytest.importorskip("transformers", reason="transformers is a test extra")
    training = steps.build(bench(nanogpt=str(nano_gpt_checkout(tmp_path))), kind, TINY)
    before = [parameter.clone() for parameter in training.parameters]
    training.step()
    training.step()
    assert all(torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True))
    set_learning_rate(training.optimizers, 0.01)
    training.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True))
    assert all(parameter.grad is None for parameter in training.parameters)


def test_random_batches_are_windows_and_what_follows() -> None:
    inputs, targets = nanogpt.random_batch(steps.random_tokens(TINY, 0), 16, 2)
    assert inputs.shape == targets.shape == (2, 16)
    assert inputs.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "why_not", lambda: "transformers is not installed.")
    kinds, notes = steps.kinds(bench())
    assert kinds == [steps.OURS, steps.OURS_ADAMW]
    assert len(notes) == 2


# train


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process finds this very code from anywhere, and runs none of the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("multiprocessing", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    memory = peak.peak_memory(bench(), steps.OURS, TINY)
    assert 50e6 < memory["before"] < memory["peak"] < 2e9


def test_the_peak_is_not_handed_down_from_the_parent() -> None:
    """Linux gives a child its parent's peak in getrusage; a large parent would hide every candidate."""
    ballast = torch.ones(300_000_000 // 4)
    code = "import torch; from minitx.system.memory import memory_bytes as m; print(m(torch.device('cpu')))"
    done = os.popen(f'"{sys.executable}" -c "{code}"').read()
    assert ballast.sum() > 0
    assert int(done) < memory_bytes(torch.device("cpu")) - 100_000_000


def test_a_process_that_fails_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"memory of nanoGPT.*no model\.py"):
        peak.peak_memory(bench(nanogpt=str(tmp_path)), steps.NANO_GPT, TINY)


@pytest.mark.usefixtures("no_processes")
def test_train_compares_all_candidates(tmp_path: Path) -> None:
    table = train.speed(bench(nanogpt=str(nano_gpt_checkout(tmp_path))), TINY)
    names = column(table, "candidate")
    assert names[:2] == [steps.OURS, steps.OURS_ADAMW]
    assert names[-1] == steps.NANO_GPT
    assert (steps.LLAMA in names) == LLAMA_THERE
    base = steps.LLAMA if LLAMA_THERE else steps.OURS
    assert column(table, "× by best")[names.index(base)] == 1.0
    assert all(len(timed["seconds"]) == 2 for timed in table.raw["seconds"].values())


def test_the_parts_add_up_to_the_step() -> None:
    table = train.time_by_part(bench(repeats=5, seconds=1), TINY)
    assert column(table, "part") == [*train.PARTS, "together"]
    assert len(table.raw["steps"]) == 5
    milliseconds = column(table, "ms per step")
    assert sum(milliseconds[:-1]) == pytest.approx(milliseconds[-1])
    assert all(took > 0 for took in milliseconds)
    assert sum(column(table, "share, %")[:-1]) == pytest.approx(100)
    assert 1e3 * sorted(step["together"] for step in table.raw["steps"])[2] == milliseconds[-1]


# generate


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_generate_has_every_work(dtype: str) -> None:
    tables = list(generate.run(bench(TINY, cpu() if dtype == "auto" else bfloat16(), dtype=dtype)))
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
    work = generate.Work(16, batch=2)
    assert generate.write_tokens(model, work._replace(cached=False)) == generate.write_tokens(model, work)


def test_llama2c_takes_part_by_its_own_clock(tmp_path: Path) -> None:
    """With a stand-in that writes what minitx writes and claims 1,000 tokens a second."""
    shape = TINY.as_llama()
    tokens = generate.write_tokens(generate.model_of(shape, 1337), generate.Work(16))[0]
    program = tmp_path / "run"
    said = "\\n".join(map(str, tokens))
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint('''{said}''')\nprint('achieved tok/s: 1000', file=sys.stderr)\n"
    )
    program.chmod(0o755)
    table = generate.compare(bench(llama2c=str(program)), shape, "float32")
    row = next(row for row in table.rows if row["candidate"] == generate.LLAMA2C)
    assert row["work"] == "decode 16, batch 1"
    assert [row["best"], row["median"]] == [pytest.approx(1000), pytest.approx(1000)]
    assert any("without OpenMP" in note for note in table.notes)
    program.write_text(program.read_text().replace(f"'''{said}", "'''5\\n5"))
    with pytest.raises(UserError, match="writes another text"):
        generate.compare(bench(llama2c=str(program)), shape, "float32")


def test_texts_that_differ_are_refused_in_float32_and_reported_in_bfloat16() -> None:
    work = generate.Work(3)
    assert generate.same_tokens([[4, 5, 6]], [[4, 5, 6]], "It", work, "float32") == "yes"
    assert generate.same_tokens([[4, 5, 6]], [[4, 9, 6]], "It", work, "bfloat16") == "first 1"
    with pytest.raises(UserError, match="after 1 equal tokens"):
        generate.same_tokens([[4, 5, 6]], [[4, 9, 6]], "It", work, "float32")


# data, ceiling, scaling


def test_data(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SIZE", 1 << 16)
    before = os.environ["XDG_CACHE_HOME"]
    (table,) = data.run(bench(TINY, dataclasses.replace(cpu(), threads=2), text=text))
    assert os.environ["XDG_CACHE_HOME"] == before
    assert column(table, "candidate") == [
        "SentencePiece, lines to lists, 1 thread",
        data.BASE,
        "minitx prepare, 1 thread",
        "SentencePiece, blocks to arrays, 2 threads",
        "minitx prepare, 2 threads",
    ]
    assert table.raw["bytes"] >= 1 << 16


def test_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceiling.SIZES, "cpu", (16, 32))
    monkeypatch.setitem(ceiling.COPIED, "cpu", 1 << 12)
    machine, use = ceiling.run(bench())
    kinds = ceiling.ways(torch.device("cpu"))
    assert [kind for kind in kinds if kind[1] != "oneDNN"] == [("float32", "torch.mm"), ("bfloat16", "torch.mm")]
    measured = list(zip(column(machine, "precision"), column(machine, "by"), strict=True))
    assert measured == [kind for kind in kinds for _ in range(4)]
    assert "tiny, logits: 32 × 16 × 61" in column(machine, "what")
    (row,) = use.rows
    work, rate = float(str(row["MFLOP per token"])), float(str(row["tokens/s, best"]))
    assert work == ceiling.flops_per_token(TINY) / 1e6
    assert row["GFLOP/s, best"] == pytest.approx(work * rate / 1e3)  # MFLOP × tokens/s → GFLOP/s


def test_flops_of_a_product() -> None:
    assert ceiling.flops((2, 3, 5)) == 60


@pytest.mark.usefixtures("no_processes")
def test_scaling_has_every_size() -> None:
    tables = dict(zip(scaling.AXES, scaling.run(bench()), strict=True))
    assert column(tables["context"], "context") == ["4", "8", "16 (as it is)", "32", "64"]
    assert column(tables["heads"], "heads") == ["1", "2 (as it is)", "4", "8"]  # 16 heads would be 1 wide
    assert column(tables["batch"], "batch") == ["1", "2 (as it is)", "4", "8"]
    caches = {axis: column(tables[axis], "cache, KB") for axis in tables}
    with torch.device("meta"):
        cache = Transformer(TINY.model, TINY.vocab_size).new_cache(1).nbytes / 1e3
    assert caches["heads"] == [cache] * 4
    assert caches["context"] == caches["width"] == [cache * factor for factor in scaling.FACTORS]
    assert caches["batch"] == [cache * batch for batch in (1, 2, 4, 8)]
    for axis, table in tables.items():
        (base,) = [row for row in table.rows if str(row[axis]).endswith(" (as it is)")]
        assert base["× per step"] == base["× per token"] == 1
        assert set(column(table, "training memory, MB")) == {2.0}
