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
    "attention": {"config", "norm"},
    "latent_attention": {"attention", "config", "norm"},
    "model": {"config", "attention", "latent_attention", "norm"},
    "muon": set(),
    "optim": {"config", "muon", "runtime"},
    "memory": {"config", "model"},
    "checkpoints": {"config", "faults", "files", "model"},
    "run": {"checkpoints", "cli", "config", "faults", "files", "memory", "model", "tokenizer"},
    "decoding": {"attention", "model"},
    "generation": {"attention", "config", "decoding", "model", "sampling"},
    "heads": {"attention", "config", "head_scores", "model"},
    "importance": {"attention", "batches", "model"},
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
}
"""Module → the modules of minitx that it may import, in reading order. Commands may import all of them."""


def imported_from_minitx(file: Path) -> set[str]:
    """Every module of minitx that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("minitx."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "minitx":
            found |= {alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("minitx.")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(f"relative import in {file.name}")
    return found


def test_every_module_has_a_room() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "__main__"} == set(ROOMS)


def test_the_rooms_are_in_order() -> None:
    above: set[str] = set()
    for room, imports in ROOMS.items():
        assert imports <= above, f"{room} imports {imports - above} from below"
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_imports_only_from_its_rows(room: str) -> None:
    assert imported_from_minitx(PACKAGE / f"{room}.py") <= ROOMS[room]


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
    ],
)
def test_modules_that_must_start_fast_do_not_import_torch(room: str) -> None:
    tree = ast.parse((PACKAGE / f"{room.replace('.', '/')}.py").read_text("utf-8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] in ("torch", "datasets", "matplotlib")}


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_its_test_file(room: str) -> None:
    assert (Path(__file__).parent / f"test_{room}.py").exists()
