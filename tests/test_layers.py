"""A folder imports only from those before it in the order below, and the core from almost none."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "minitx"
CORE = ["attention", "latent_attention", "tricks", "model", "model_size"]
ORDER = ["fast", "cache", "system", "config", "data", *CORE, "run", "generation", "heads", "tensorboard"]
ORDER += ["training", "interop", "studies", "bench", "commands"]
FORBIDDEN: dict[str, set[str]] = {
    **{core: {"system", "data"} for core in ("attention", "latent_attention", "tricks", "model")},
    "generation": {"run"},
    "heads": {"run"},
}
"""What a room leaves alone though it comes before."""


def imports(file: Path) -> set[str]:
    """The modules of minitx that a file imports, anywhere in it, with dots."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            modules |= {
                f"{node.module}.{alias.name}" if node.module == "minitx" else str(node.module) for alias in node.names
            }
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module.removeprefix("minitx.") for module in modules if module.startswith("minitx.")} - {"__version__"}


def files() -> list[tuple[str, Path]]:
    """Each module's room and file."""
    return [
        (file.relative_to(PACKAGE).with_suffix("").parts[0], file)
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.stem not in ("__init__", "__main__")
    ]


def test_every_room_has_its_place() -> None:
    assert {room for room, _ in files()} == set(ORDER)


def test_a_room_imports_only_from_rooms_before_it() -> None:
    for room, file in files():
        before = set(ORDER[: ORDER.index(room) + 1]) - FORBIDDEN.get(room, set())
        for module in imports(file):
            assert module.split(".")[0] in before, f"{file.relative_to(PACKAGE)} imports {module}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {}
    for _, file in files():
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        graph[name] = imports(file)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' → '.join((*path, name))}"
        if name in done:
            return
        for imported in graph.get(name, ()):
            visit(imported, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_the_tab_needs_no_torch_and_only_snapshots_and_files() -> None:
    for file in (PACKAGE / "tensorboard" / "plugin").glob("*.py"):
        allowed = {f"heads.{name}" for name in ("examples_file", "snapshots", "snapshot_rows")}
        allowed |= {"heads", "system.errors", "system.fields", "system.files"}
        assert {m for m in imports(file) if not m.startswith("tensorboard.plugin")} <= allowed, file.name
