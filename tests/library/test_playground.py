"""The notebook docs/playground.ipynb runs from top to bottom, and its outputs are stored small.

`python -m tests.library.test_playground` runs it in full and stores its outputs again (needs nbclient and ipykernel).
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "playground.ipynb"
MAX_BYTES = 300_000
SHORTER = {"STEPS = 300 ": "STEPS = 3 ", "val_fraction=0.02": "val_fraction=0.002"}


def read() -> dict[str, Any]:
    return dict(json.loads(NOTEBOOK.read_text("utf-8")))


def play(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run all cells in a kernel that works in `folder`; the notebook with their outputs."""
    import nbclient
    import nbformat

    played = nbformat.reads(json.dumps(notebook), as_version=4)
    nbclient.NotebookClient(played, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return dict(json.loads(nbformat.writes(played)))


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = read()
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for setting, smaller in SHORTER.items():
        (cell,) = (cell for cell in cells if setting in "".join(cell["source"]))
        cell["source"] = "".join(cell["source"]).replace(setting, smaller)
    if all(importlib.util.find_spec(name) for name in ("nbclient", "ipykernel")):
        *_, viewer = (cell for cell in play(notebook, tmp_path)["cells"] if cell["cell_type"] == "code")
        assert "<iframe" in "".join(viewer["outputs"][0]["data"]["text/html"])
    else:  # the same cells, in this process
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MPLBACKEND", "agg")
        names: dict[str, object] = {}
        for cell in cells:
            exec("".join(cell["source"]), names)
    assert (tmp_path / "runs" / "playground" / "summary.json").is_file()


def test_it_is_stored_as_it_ran_and_small() -> None:
    cells = [cell for cell in read()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    stored = NOTEBOOK.read_text("utf-8")
    assert len(stored) < MAX_BYTES and "<iframe" not in stored
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
    assert all((NOTEBOOK.parent / name).is_file() for name in ("playground.png", "library.md"))


def store() -> None:
    """Run the notebook and store it with its outputs, but without the viewer and what names this machine."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = play(read(), Path(folder))
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        for output in cell.get("outputs", []):
            if "<iframe" in "".join(output.get("data", {}).get("text/html", "")):
                del output["data"]["text/html"]
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    store()
