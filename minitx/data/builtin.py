"""Texts that need no download: the documentation that comes with Python, and random letters that come twice."""

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

# Parts of the standard library that are no modules to read about, or hold generated tables.
SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data"}
MIN_DOCUMENT, CUT = 200, 100  # characters; cuts lie end to end, so any passage of twice a cut holds a whole one
REPEATED_DOCUMENTS, REPEATED_LETTERS = 30_000, "abcdefghijklmnop"


def python_docs() -> Iterator[str]:
    """A document for each topic of the language reference, then one for each module of the standard library.

    Topics contain one another, and modules copy docstrings. Here no two documents share 200 characters in a row.
    Paragraphs that repeat an earlier document are left out. So are documents that lose more than half by that.
    """
    cuts: set[str] = set()  # of the documents so far
    for text in _topics_and_modules():
        new = _new_paragraphs(text, cuts)
        if len(new) >= max(MIN_DOCUMENT, len(text) / 2):
            cuts.update(new[start : start + CUT] for start in range(0, len(new) - CUT + 1, CUT))
            yield new


def _new_paragraphs(text: str, cuts: set[str]) -> str:
    """`text` without the paragraphs that hold one of `cuts`, or the end of one that begins before them."""
    new = ""
    for paragraph in text.split("\n\n"):
        longer = f"{new}{paragraph}\n\n"
        starts = range(max(0, len(new) - CUT + 1), len(longer) - CUT + 1)
        if cuts.isdisjoint(longer[start : start + CUT] for start in starts):
            new = longer
    return new.removesuffix("\n\n")


def _topics_and_modules() -> Iterator[str]:
    topics: dict[str, str] = {}
    with contextlib.suppress(ImportError):  # some systems leave it out of Python
        topics = importlib.import_module("pydoc_data.topics").topics
    yield from sorted(sorted(set(topics.values())), key=len, reverse=True)  # a topic comes after one that contains it
    library = Path(sysconfig.get_path("stdlib"))
    used: set[str] = set()
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        parts = path.relative_to(library).with_suffix("").parts
        # Folders with a hyphen hold no modules of the library: site-packages, lib-dynload, config-3.11-….
        if SKIPPED.isdisjoint(parts) and not any("-" in part for part in parts):
            yield _module_document(path, ".".join(parts).removesuffix(".__init__"), used)
    require(bool(topics or used), f"python-docs finds no modules in {library}: name a file as data.source.")


def _module_document(path: Path, name: str, used: set[str]) -> str:
    """The docstrings of a module under the names of what they describe, but those in `used`, which grows by them."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # a test of Python may hold a file that is wrong on purpose
        return ""
    entries = []
    for title, docstring in _docstrings(tree, name):
        text = inspect.cleandoc(docstring).strip()
        if text and text not in used:
            used.add(text)
            entries.append(f"{title}\n{text}\n")
    return "\n".join(entries)


def _docstrings(node: ast.Module | ast.ClassDef, name: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(title, docstring) of a module or class, then of its functions and classes, in the order of the source."""
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
    """Documents of random letters that come twice, such as "dkabjmiedkabjmie"; always the same documents.

    The second time, the next letter can only be looked up in the first (after Olsson et al. 2022). Each document
    repeats 8 to 16 different letters of 16, so that neither the letter nor the distance back gives it away.
    """
    generator = random.Random(0)
    for _ in range(REPEATED_DOCUMENTS):
        yield "".join(generator.sample(REPEATED_LETTERS, generator.randint(8, 16))) * 2
