"""Texts that need no download: documentation that is installed already, and random letters that come twice."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import random
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from minitx.data.prose import prose
from minitx.system.errors import require
from minitx.system.files import sha256

# Parts of the standard library that some systems leave out, or that hold generated tables.
SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data"}
# Written in C and safe to import, besides those inside the interpreter. Some systems lack some.
EXTENSIONS = "_asyncio _csv _ctypes _datetime _decimal _elementtree _json _pickle _socket _sqlite3 _ssl _struct array "
EXTENSIONS += "binascii math mmap pyexpat select unicodedata zlib"
WRITTEN = re.compile(  # a text in triple quotes, or comments on lines of their own, two or more
    r"(\"\"\"|''')(?P<string>.*?)(?<!\\)\1|(?P<comments>(?:^[ \t]*#[^\n]*\n){2,})", re.DOTALL | re.MULTILINE
)
MIN_DOCUMENT = 200  # characters
PACKAGES = ("numpy", "matplotlib")
"""Packages with much prose that minitx needs anyway. PyTorch's is about its own insides and did not help."""
RULES = sha256(b"".join((resources.files(__package__) / name).read_bytes() for name in ("builtin.py", "prose.py")))
"""SHA-256 of what chooses the text of python-docs, in hexadecimal."""
REPEATED_DOCUMENTS, REPEATED_LETTERS = 30_000, "abcdefghijklmnop"


def python_docs(seen: set[str]) -> Iterator[str]:
    """The prose in the topics of the language reference, then in each module written in Python, then in those in C.

    A document is a topic or a module. No eight words in a row come twice, so that no document repeats another; `seen`
    holds those that came.
    """
    library = Path(sysconfig.get_path("stdlib"))
    found = modules(library)
    require(bool(found), f"python-docs finds no modules in {library}: name a file as data.source.")
    yield from _documents((*_topics(), *map(written, found), *_extensions()), seen)


def package_docs(seen: set[str]) -> Iterator[str]:
    """The prose in each module of `PACKAGES`, as far as they are installed, without what `seen` holds."""
    for package in installed():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from _documents(map(written, modules(Path(folder))), seen)


def installed() -> dict[str, str]:
    """Those of `PACKAGES` that are installed, with their versions."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _documents(written: Iterable[Iterable[str]], seen: set[str]) -> Iterator[str]:
    """The prose of each, if it is long enough."""
    for texts in written:
        document = prose(texts, seen)
        if len(document) >= MIN_DOCUMENT:
            yield document


def modules(folder: Path) -> list[Path]:
    """The files of a library written in Python, in the order of their names."""
    found = []
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).parts):
        parts = path.relative_to(folder).with_suffix("").parts
        # Folders with a hyphen hold no modules of the library: site-packages, lib-dynload, config-3.11-….
        if SKIPPED.isdisjoint(parts) and not any("-" in part for part in parts):
            found.append(path)
    return found


def written(path: Path) -> list[str]:
    """What a source file says in docstrings and comments, in order."""
    try:
        source = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    return [
        inspect.cleandoc(found["string"]) if found["string"] else re.sub("^[ \t]*#+ ?", "", found[0], flags=re.M)
        for found in WRITTEN.finditer(source)
    ]


def _topics() -> Iterator[list[str]]:
    topics: dict[str, str] = {}
    with contextlib.suppress(ImportError):  # some systems leave it out of Python
        topics = importlib.import_module("pydoc_data.topics").topics
    for topic in sorted(sorted(set(topics.values())), key=len, reverse=True):  # one comes after one that contains it
        yield [topic]


def _extensions() -> Iterator[list[str]]:
    """The docstrings of each module written in C, of its functions, its classes and their methods."""
    for name in sorted({*sys.builtin_module_names, *EXTENSIONS.split()}):
        with contextlib.suppress(ImportError), warnings.catch_warnings(action="ignore"):
            module = importlib.import_module(name)
            owners = (module, *filter(inspect.isclass, _members(module)))
            documented = (thing for owner in owners for thing in (owner, *_members(owner)))
            yield [inspect.cleandoc(thing.__doc__) for thing in documented if _is_in_c(thing)]


def _members(owner: object) -> list[Any]:
    """What a module or class holds, by name."""
    return [value for _, value in sorted(vars(owner).items())]


def _is_in_c(thing: Any) -> bool:
    """Whether `thing` is a module, class, function or attribute; functions in Python were put there by a program."""
    tests = inspect.ismodule, inspect.isclass, inspect.isbuiltin, inspect.ismethoddescriptor, inspect.isdatadescriptor
    return any(test(thing) for test in tests) and isinstance(thing.__doc__, str)


def repeated_letters() -> Iterator[str]:
    """Documents of random letters that come twice, such as "dkabjmiedkabjmie"; always the same documents.

    The second time, the next letter can only be looked up in the first (after Olsson et al. 2022). Each document
    repeats 8 to 16 different letters of 16, so that neither the letter nor the distance back gives it away.
    """
    generator = random.Random(0)
    for _ in range(REPEATED_DOCUMENTS):
        yield "".join(generator.sample(REPEATED_LETTERS, generator.randint(8, 16))) * 2
