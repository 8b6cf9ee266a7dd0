"""Step, evaluation and loop: what they compute, and that a stopped run goes on exactly."""

from __future__ import annotations

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from minitx.config import Config, GenerateConfig, ModelConfig
from minitx.data.batches import Batches
from minitx.data.prepare import prepare
from minitx.generation.generate import complete
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.run import weights
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.runtime import choose_runtime
from minitx.system.signals import StopRequest
from minitx.training.divergence import is_finite
from minitx.training.loop import evaluate, train_step, training_loss
from minitx.training.optim import build_optimizers
from minitx.training.session import train
from minitx.training.state import Training, bits_per_byte
from tests.small import small_config, small_model

MEASURED = ("seconds", "tokens_per_second")


def exact_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Every line of metrics without the values that a clock decides."""
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in Run(Path(path)).metrics()]


def test_evaluation_is_the_mean_over_every_token_but_the_first() -> None:
    """Against one window at a time in float64."""
    model = small_model(vocab_size=30)
    tokens = np.random.default_rng(0).integers(0, 30, 32 * 5 + 7).astype(np.uint16)
    reference = model.double()
    nats: list[float] = []
    for start in range(0, len(tokens) - 1, 32):
        window = torch.from_numpy(tokens[start : start + 33].astype(np.int64))
        with torch.no_grad():
            log_probabilities = reference(window[None, :-1]).log_softmax(-1)[0]
        nats += [-log_probabilities[i, target].item() for i, target in enumerate(window[1:])]
    runtime = choose_runtime("cpu", "float32", False, 1)
    assert len(nats) == len(tokens) - 1
    assert evaluate(model.float(), tokens, 2, runtime) == pytest.approx(np.mean(nats), abs=1e-6)


def test_bits_per_byte() -> None:
    """Uniform guesses over 256 byte tokens are 8 bits per byte, less the first token, which nothing predicts."""
    assert bits_per_byte(math.log(256), 1001, 1000) == pytest.approx(8)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_accumulated_batches_equal_one_large_batch(optimizer: str, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 30, 32 * 40).astype(np.uint16)
    runtime = choose_runtime("cpu", "float32", False, 1)
    results: list[tuple[float, float, torch.Tensor]] = []
    for batch_size, grad_accum in ((8, 1), (2, 4)):
        config = small_config(tmp_path, batch_size=batch_size, grad_accum=grad_accum, optimizer=optimizer).train
        model = small_model(vocab_size=30)
        batches = Batches(tokens, 32, batch_size, seed=1)
        loss, norm = train_step(
            training_loss(model), list(model.parameters()), build_optimizers(model, config), batches, runtime, config
        )
        results.append((loss.item(), norm.item(), torch.cat([p.detach().flatten() for p in model.parameters()])))
    (loss_1, norm_1, weights), (loss_2, norm_2, weights_2) = results
    assert loss_2 == pytest.approx(loss_1, rel=1e-5) and norm_2 == pytest.approx(norm_1, rel=1e-4)
    torch.testing.assert_close(weights_2, weights, rtol=0, atol=1e-5 if optimizer == "adamw" else 1e-4)


class SeenTypes(TorchDispatchMode):
    """Notes the dtypes that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {value.dtype for value in pytree.tree_leaves(result) if isinstance(value, torch.Tensor)}
        return result


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_in_float32_computes_nothing_in_bfloat16(dtype: str, tmp_path: Path) -> None:
    """Not even where the processor would be quicker with it."""
    config, runtime = small_config(tmp_path, optimizer="muon"), choose_runtime("cpu", dtype, False, 1)
    tokens, model = np.arange(32 * 40, dtype=np.uint16) % 30, small_model(vocab_size=30)
    batches = Batches(tokens, 32, 2, seed=1)
    optimizers = build_optimizers(model, config.train, runtime.dtype)
    with SeenTypes() as types:
        train_step(training_loss(model), list(model.parameters()), optimizers, batches, runtime, config.train)
    assert (torch.bfloat16 in types.seen) == (dtype == "bfloat16")


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 30, 32 * 40).astype(np.uint16)
    runtime = choose_runtime("cpu", "float32", False, 1)
    config = small_config(tmp_path, grad_clip=1e-3, optimizer="adamw").train
    model = small_model(vocab_size=30)
    seen: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in grads]).norm().item())

    spy = torch.optim.SGD(model.parameters(), lr=0.0)
    spy.register_step_pre_hook(look)
    batches, loss_of = Batches(tokens, 32, 4, 1), training_loss(model)
    _, norm = train_step(loss_of, list(model.parameters()), [spy], batches, runtime, config)
    assert norm.item() > 0.1 and seen == [pytest.approx(1e-3, rel=1e-3)]


@pytest.mark.parametrize(
    ("kind", "autocast"),
    [({}, True), ({"n_kv_head": 1}, False), ({"attention": "latent"}, False), ({"kept_heads": [[], [1]]}, False)],
    ids=["multi-head, bfloat16", "multi-query", "latent", "pruned"],
)
def test_the_loss_is_one_program_where_it_is_compiled(kind: dict[str, Any], autocast: bool) -> None:
    """As one graph with its backward pass, whose operations are then run one by one: same loss, same gradients."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=32, **kind), vocab_size=30)
    inputs, targets = torch.randint(30, (2, 4, 32)).unbind()
    found = []
    for loss_of in (
        training_loss(model),
        torch.compile(training_loss(model), backend="aot_eager", fullgraph=True, dynamic=False),
    ):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(inputs, targets)
        loss.backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.detach(), torch.cat(grads)))
    (loss, gradient), (compiled_loss, compiled_gradient) = found
    tolerance = 1e-2 if autocast else 1e-5
    assert compiled_loss.item() == pytest.approx(loss.item(), rel=tolerance)
    assert (compiled_gradient - gradient).norm() < 3 * tolerance * gradient.norm()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_step_looks_at_no_value(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it never waits for a GPU: it runs on tensors with shapes but no values, where looking is an error."""
    plain = lambda logits, targets, reduction: F.cross_entropy(logits, targets, reduction=reduction)  # noqa: E731
    monkeypatch.setattr("minitx.model.cross_entropy", plain)  # a GPU takes it; the CPU looks at the gradient
    tokens, runtime = np.zeros(5000, np.uint16), choose_runtime("cpu", "float32", False, 1)
    config = small_config(tmp_path, grad_accum=2, optimizer=optimizer).train
    with FakeTensorMode():
        model = small_model(vocab_size=30)
        parameters, optimizers = list(model.parameters()), build_optimizers(model, config)
        for _ in range(2):
            loss, norm = train_step(
                training_loss(model), parameters, optimizers, Batches(tokens, 32, 4, 1), runtime, config
            )
        with pytest.raises(DataDependentOutputException):
            is_finite(loss, norm)


def test_a_run_learns_and_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path, steps=60, eval_every=20, checkpoint_every=20, start="random")
    assert train(config) == 0
    run = Run.find(config.out)
    lines = run.metrics()
    assert [line["step"] for line in lines] == list(range(1, 61))
    validated = [line for line in lines if line["val_loss"] is not None]
    assert [line["step"] for line in validated] == [20, 40, 60]
    assert validated[-1]["val_loss"] < validated[0]["val_loss"] < lines[0]["train_loss"]
    assert lines[-1]["tokens"] == 60 * 4 * 32
    summary = run.read_json("summary.json")
    assert summary["val_loss"] == validated[-1]["val_loss"]
    assert summary["best_val_loss"] == min(line["val_loss"] for line in validated)
    assert summary["fingerprint"] == run.read_json("data.json")["fingerprint"]
    assert run.checkpoint("last").step == 60
    printed = capsys.readouterr().out
    assert "device cpu (as set)" in printed and "--- sample at step 60 ---" in printed
    assert f"minitx generate {run.path}" in printed and "tensorboard --logdir" in printed


@pytest.mark.parametrize(
    ("kind", "bytes_per_token"),
    [
        ({"n_kv_head": 2}, 2 * 2 * 2 * 4 * 4),
        ({"n_kv_head": 1}, 2 * 2 * 1 * 4 * 4),
        ({"attention": "latent"}, 2 * (8 + 2) * 4),
        ({"kept_heads": [[], [0, 2, 3]], "n_kv_head": 2}, 2 * 2 * 4 * 4),
    ],
    ids=["grouped", "multi-query", "latent", "pruned"],
)
def test_every_kind_of_attention_trains_and_generates(
    kind: dict[str, Any], bytes_per_token: int, tmp_path: Path
) -> None:
    """Heads and samples logged on the way; the cache that it generates from takes what the formula says."""
    config = small_config(tmp_path, steps=40, eval_every=20, sample_every=40)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_head=4, **kind))
    assert train(config) == 0
    run = Run.find(config.out)
    validated = [line["val_loss"] for line in run.metrics() if line["val_loss"] is not None]
    assert validated[1] < validated[0] < math.log(run.tokenizer().vocab_size)
    model, _ = run.load_model("last", torch.device("cpu"))
    assert model.new_cache(1).nbytes == 32 * bytes_per_token
    assert cache_bytes_per_token(model.config) == bytes_per_token
    completion = complete(model, run.tokenizer(), "the cat", GenerateConfig(max_new_tokens=50, temperature=0))[0]
    assert completion.completion and (completion.tokens == 50 or completion.stop_reason == "end")


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    for _ in range(2):
        train(config)
    train(dataclasses.replace(config, seed=7))
    assert exact_metrics(config.out) == exact_metrics(config.out + "-2") != exact_metrics(config.out + "-3")


@pytest.mark.parametrize(
    ("optimizer", "dropout", "grad_accum"), [("muon", 0.0, 1), ("muon", 0.2, 2), ("adamw", 0.2, 1)]
)
def test_a_resumed_run_is_the_run_that_never_stopped(
    optimizer: str, dropout: float, grad_accum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at step 7, resumed: the same metrics to the last bit, and the same weights."""
    config = small_config(tmp_path, optimizer=optimizer, grad_accum=grad_accum)
    log = dataclasses.replace(config.log, snapshots_every=2, keep_weights=4)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=dropout), log=log)
    assert train(config) == 0
    stopped = interrupted_at(7, config, monkeypatch)
    assert [line["step"] for line in exact_metrics(stopped)] == list(range(1, 8))
    resumed = dataclasses.replace(Run(Path(stopped)).config())
    assert train(resumed, resume=stopped) == 0
    assert exact_metrics(stopped) == exact_metrics(config.out)
    ours, theirs = (Run(Path(path)).load_model("last", torch.device("cpu"))[0] for path in (stopped, config.out))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert weights.steps(Path(stopped)) == weights.steps(Path(config.out)) == [2, 4, 8, 12]
    ours, theirs = (Run(Path(path)).load_model("2", torch.device("cpu"))[0] for path in (stopped, config.out))
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)


def interrupted_at(step: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> str:
    """Train `config` with a real SIGTERM raised in `step`; the run folder."""
    import minitx.training.loop

    original, calls = minitx.training.loop.train_step, [0]

    def stepping(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(minitx.training.loop, "train_step", stepping)
        assert train(config) == 128 + signal.SIGTERM
    return config.out + "-2"


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_looking_at_the_heads_leaves_the_weights_as_they_would_be(dropout: float, tmp_path: Path) -> None:
    """To the last bit, with the pass back that importance takes between any two steps."""
    found = []
    for every in (0, 1):
        config = small_config(tmp_path, sample_every=0)
        log = dataclasses.replace(config.log, heads_every=every, snapshots_every=every)
        model = dataclasses.replace(config.model, dropout=dropout)
        out = str(tmp_path / "runs" / str(every))
        assert train(dataclasses.replace(config, out=out, log=log, model=model)) == 0
        found.append((Run(Path(out)).checkpoint("last").path / "model.safetensors").read_bytes())
        assert bool(Run(Path(out)).metrics("heads.jsonl")) == bool(every)
    assert found[0] == found[1]


def test_a_finished_run_goes_on_with_more_steps(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    train(config)
    stored = Run(Path(config.out)).config()
    with pytest.raises(UserError, match="is finished at step 12: to go on, give more steps"):
        train(stored, resume=config.out)
    longer = dataclasses.replace(stored, train=dataclasses.replace(stored.train, steps=16))
    assert train(longer, resume=config.out) == 0
    assert [line["step"] for line in exact_metrics(config.out)] == list(range(1, 17))


def test_a_resumed_run_cannot_become_another(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    train(config)
    stored = Run(Path(config.out)).config()
    with pytest.raises(UserError, match="keeps its seed settings"):
        train(dataclasses.replace(stored, seed=2), resume=config.out)
    (tmp_path / "text.txt").write_text("Another text. " * 500)
    longer = dataclasses.replace(stored, train=dataclasses.replace(stored.train, steps=16))
    with pytest.raises(UserError, match="has changed since"):
        train(longer, resume=config.out)


def test_the_first_signal_is_noted_and_handlers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.noted is None
        signal.raise_signal(signal.SIGINT)
        assert stop.noted == signal.SIGINT
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        signal.raise_signal(signal.SIGTERM)  # torchrun sends a second one
        assert stop.noted == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


def test_the_clock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    model = Transformer(config.model, prepared.tokenizer.vocab_size)
    training = Training(config, Run(tmp_path), prepared, choose_runtime("cpu", "float32", False, 1), model)
    times = iter([10.0, 12.0, 50.0, 53.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    training.progress.seconds = 1.0
    for seconds in (3.0, 6.0):
        training.start_clock()
        training.stop_clock()
        training.stop_clock()  # stands still already
        assert training.progress.seconds == seconds
