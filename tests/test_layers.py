"""The rooms of the house: a module imports only from rows above its own, and each test file has its module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minitx"

ROOMS: dict[str, set[str]] = {
    "config": set(),
    "faults": set(),
    "files": {"config", "faults"},
    "cli": {"config", "faults"},
    "runtime": {"config"},
    "tokenizer": {"config", "faults"},
    "sampling": {"config"},
    "head_scores": set(),
    "hub": {"config"},
    "sources": {"config", "hub"},
    "spool": {"config", "sources"},
    "token_files": {"config"},
    "batches": {"config", "token_files"},
    "data": {"batches", "config", "files", "sources", "spool", "token_files", "tokenizer"},
    "norm": set(),
    "linear": set(),
    "attention": {"config", "linear", "norm"},
    "latent_attention": {"attention", "config", "linear", "norm"},
    "model": {"config", "attention", "latent_attention", "linear", "norm"},
    "muon": set(),
    "optim": {"config", "muon", "runtime"},
    "memory": {"config", "model"},
    "checkpoints": {"config", "faults", "files", "model"},
    "run": {"checkpoints", "cli", "config", "faults", "files", "memory", "model", "tokenizer"},
    "decoding": {"attention", "linear", "model"},
    "generation": {"attention", "config", "decoding", "model", "sampling"},
    "importance": {"attention", "batches", "model"},
    "heads": {"attention", "config", "head_scores", "importance", "model"},
    "probes": {"config", "heads", "model"},
    "head_table": {"config", "head_scores", "heads", "importance", "model", "probes", "tokenizer"},
    "walkthrough": {"attention", "config", "model"},
    "snapshots": set(),
    "viewing": {"config", "head_scores", "heads", "importance", "model", "probes", "snapshots", "tokenizer"},
    "pictures": set(),
    "board": {"faults", "head_scores", "pictures"},
    "hf": {"config", "model"},
    "pruning": {"batches", "config", "model"},
    "report": {
        "board",
        "config",
        "data",
        "generation",
        "heads",
        "model",
        "pictures",
        "probes",
        "run",
        "runtime",
        "snapshots",
        "viewing",
    },
    "divergence": {"batches", "config", "run", "tokenizer"},
    "training": {
        "batches",
        "checkpoints",
        "config",
        "data",
        "divergence",
        "model",
        "optim",
        "report",
        "run",
        "runtime",
    },
    "comparison": {
        "batches",
        "board",
        "config",
        "data",
        "generation",
        "model",
        "optim",
        "report",
        "run",
        "runtime",
        "training",
    },
    "benchmarks.settings": {"config", "files"},
    "benchmarks.timing": {"benchmarks.settings"},
    "benchmarks.tables": {"benchmarks.timing"},
    "benchmarks.machine": {"runtime"},
    "benchmarks.shapes": {"cli", "config"},
    "benchmarks.peers": {"benchmarks.shapes", "config", "hf", "model"},
    "benchmarks.steps": {
        "batches",
        "benchmarks.peers",
        "benchmarks.shapes",
        "config",
        "model",
        "optim",
        "runtime",
        "token_files",
        "training",
    },
    "benchmarks.peak": {"benchmarks.shapes", "benchmarks.steps", "config", "runtime"},
    "benchmarks.parts": {
        "batches",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.timing",
        "config",
        "data",
        "model",
        "optim",
        "report",
        "run",
        "runtime",
        "training",
    },
    "benchmarks.train": {
        "benchmarks.parts",
        "benchmarks.peak",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.tables",
        "benchmarks.timing",
        "runtime",
    },
    "benchmarks.llama2c": {"config", "model"},
    "benchmarks.generate": {
        "decoding",
        "benchmarks.llama2c",
        "benchmarks.peers",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.tables",
        "benchmarks.timing",
        "config",
        "generation",
        "model",
        "runtime",
    },
    "benchmarks.data": {
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.tables",
        "benchmarks.timing",
        "config",
        "data",
        "runtime",
        "sources",
        "tokenizer",
    },
    "benchmarks.ceiling": {
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.tables",
        "benchmarks.timing",
        "linear",
        "model",
        "runtime",
    },
    "benchmarks.scaling": {
        "benchmarks.ceiling",
        "benchmarks.generate",
        "benchmarks.peak",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.tables",
        "benchmarks.timing",
        "config",
        "model",
        "runtime",
    },
    "benchmarks.nanogpt_command": {"batches", "benchmarks.peers", "config", "runtime"},
    "benchmarks.loss_curves": set(),
    "benchmarks.loss": {
        "batches",
        "benchmarks.loss_curves",
        "benchmarks.nanogpt_command",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.tables",
        "benchmarks.timing",
        "cli",
        "config",
        "data",
        "model",
        "optim",
        "runtime",
        "training",
    },
    "benchmarks.gpu": {
        "benchmarks.ceiling",
        "benchmarks.generate",
        "benchmarks.peak",
        "benchmarks.settings",
        "benchmarks.shapes",
        "benchmarks.steps",
        "benchmarks.tables",
        "benchmarks.timing",
        "config",
        "model",
        "runtime",
    },
}
"""Module → the modules of minitx that it may import, in reading order. Commands may import all of them."""
BENCHMARKS = {room for room in ROOMS if room.startswith("benchmarks.")}


def imported_from_minitx(file: Path) -> set[str]:
    """Every module of minitx that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("minitx."):
            parts = node.module.split(".")[1:]
            if parts == ["benchmarks"]:
                found |= {f"benchmarks.{alias.name}" for alias in node.names}
            else:
                found.add(".".join(parts) if parts[0] == "benchmarks" else parts[0])
        elif isinstance(node, ast.ImportFrom) and node.module == "minitx":
            found |= {alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("minitx.")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(f"relative import in {file.name}")
    return found


def test_every_module_has_a_room() -> None:
    modules = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    modules |= {f"benchmarks.{file.stem}" for file in (PACKAGE / "benchmarks").glob("*.py")} - {"benchmarks.__init__"}
    assert modules == set(ROOMS)


def test_the_rooms_are_in_order() -> None:
    above: set[str] = set()
    for room, imports in ROOMS.items():
        assert imports <= above, f"{room} imports {imports - above} from below"
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_imports_only_from_its_rows(room: str) -> None:
    assert imported_from_minitx(PACKAGE / f"{room.replace('.', '/')}.py") <= ROOMS[room]


@pytest.mark.parametrize(
    "room",
    [
        "head_scores",
        "board",
        "pictures",
        "snapshots",
        "config",
        "cli",
        "faults",
        "files",
        "hub",
        "sources",
        "spool",
        "token_files",
        "batches",
        "data",
        "tokenizer",
        "benchmarks.settings",
    ],
)
def test_modules_that_must_start_fast_do_not_import_torch(room: str) -> None:
    tree = ast.parse((PACKAGE / f"{room.replace('.', '/')}.py").read_text("utf-8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] in ("torch", "datasets", "matplotlib")}


@pytest.mark.parametrize("room", sorted(set(ROOMS) - BENCHMARKS))
def test_every_module_has_its_test_file(room: str) -> None:
    assert (Path(__file__).parent / f"test_{room}.py").exists()


def test_every_benchmark_is_in_one_of_their_test_files() -> None:
    files = [*Path(__file__).parent.glob("test_bench_*.py"), Path(__file__).parent / "test_command_bench.py"]
    assert set().union(*map(imported_from_minitx, files)) >= BENCHMARKS
