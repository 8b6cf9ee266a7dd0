"""Texts that need no download: the documentation that comes with Python, and letters that repeat."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import random
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from minitx.system.errors import require

# Parts of the standard library that are not modules to read about, or hold machine-made tables.
SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data"}
SHORTEST_MODULE = 200  # characters
REPEATED_DOCUMENTS, REPEATED_LETTERS = 30_000, "abcdefghijklmnop"


def python_docs() -> Iterator[str]:
    """A document for each topic of the language reference, then one for each module of the standard library."""
    topics: dict[str, str] = {}
    with contextlib.suppress(ImportError):  # some systems leave it out of Python
        topics = importlib.import_module("pydoc_data.topics").topics
    yield from dict.fromkeys(topics[name] for name in sorted(topics))  # two names may share a text
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    found = bool(topics)
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        parts = path.relative_to(library).with_suffix("").parts
        # A hyphen marks what is no module: site-packages, dist-packages, lib-dynload, config-3.11-….
        if SKIPPED.isdisjoint(parts) and not any("-" in part for part in parts):
            text = _module_document(path, ".".join(parts).removesuffix(".__init__"), seen)
            if len(text) >= SHORTEST_MODULE:
                found = True
                yield text
    require(found, f"python-docs finds no modules in {library}: name a file as data.source.")


def _module_document(path: Path, name: str, seen: set[str]) -> str:
    """The docstrings of a module under the names they belong to; those in `seen` are left out, the rest put there."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # such as a file that is there to be wrong
        return ""
    entries = []
    for title, docstring in _docstrings(tree, name):
        text = inspect.cleandoc(docstring).strip()
        if text and text not in seen:
            seen.add(text)
            entries.append(f"{title}\n{text}\n")
    return "\n".join(entries)


def _docstrings(node: ast.Module | ast.ClassDef, name: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(title, docstring) of a module or class and of what it defines, in the order of the source."""
    if docstring := ast.get_docstring(node, clean=False):
        yield name, docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            bases = f"({', '.join(map(ast.unparse, child.bases))})" if child.bases else ""
            yield from _docstrings(child, f"class {prefix}{child.name}{bases}", f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(child, clean=False)
            if docstring:
                yield f"{prefix}{child.name}({ast.unparse(child.args)})", docstring


def repeated_letters() -> Iterator[str]:
    """Documents of random letters that come twice, such as "dkabjmiedkabjmie": what comes next the second time can only
    be looked up (after the random sequences of Olsson et al. 2022).

    8 to 16 different letters of 16, so that neither the letters nor the distance back give it away. Always the same
    documents.
    """
    draw = random.Random(0)
    for _ in range(REPEATED_DOCUMENTS):
        yield "".join(draw.sample(REPEATED_LETTERS, draw.randint(8, 16))) * 2
