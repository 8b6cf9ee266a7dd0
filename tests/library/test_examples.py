"""The examples of the library's docstrings do what they say, and its names are there at once, typed, without torch."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import assert_type

import pytest
import torch

import minitx
from tests.small import small_config

ROOT = Path(__file__).parents[2]
INIT = ROOT / "minitx" / "__init__.py"
MODULES = [importlib.import_module(f"minitx.library.{name}") for name in ("cell", "loaded_run", "looking")]
CASES = [case for module in MODULES for case in doctest.DocTestFinder().find(module) if case.examples]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_example_of_a_docstring(case: doctest.DocTest, run: minitx.LoadedRun) -> None:
    case.globs |= {"minitx": minitx, "dataclasses": dataclasses, "torch": torch}
    case.globs |= {"run": run, "config": small_config(Path())}
    assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(case).failed


def test_every_function_has_an_example() -> None:
    shown = {case.name.rpartition(".")[2] for case in CASES}
    for name in minitx.__all__:
        thing = getattr(minitx, name)
        assert thing.__doc__, name
        assert name in shown or isinstance(thing, type), name


def test_a_type_checker_is_told_of_the_names_that_are_there() -> None:
    blocks = [node for node in ast.parse(INIT.read_text("utf-8")).body if isinstance(node, ast.If)]
    told = {alias.name for node in blocks[0].body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == {*minitx.__all__} <= {*dir(minitx)}
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    assert INIT.with_name("py.typed").is_file() and "py.typed" in package_data["minitx"]


def test_mypy_knows_what_functions_return(run: minitx.LoadedRun) -> None:
    look = minitx.record(run, "the cat")
    assert_type(run, minitx.LoadedRun)  # these are for mypy, which checks this file
    assert_type(look.patterns, torch.Tensor)
    assert_type(run.loss("the cat"), float)
    assert_type(minitx.show(run, "the cat"), minitx.Page)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        minitx.nonsense  # type: ignore[attr-defined]  # noqa: B018  mypy knows that it is not there


def test_torch_is_imported_with_the_first_name_that_needs_it() -> None:
    code = (
        "import sys, minitx\n"
        "heavy = {'torch', 'numpy', 'jsonargparse', 'yaml', 'dataclasses'}\n"
        "before = heavy & set(sys.modules)\n"
        "minitx.Config, minitx.UserError\n"
        "sys.exit(str(before | {'torch', 'numpy'} & set(sys.modules)) if before or 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
