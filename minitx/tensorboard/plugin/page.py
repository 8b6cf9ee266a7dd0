"""Makes a self-contained HTML file of snapshots: the modules, style and data of the Attention tab, without a server."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"
ENTRY, MODEL_ENTRY, WORKER_ENTRY = STATIC / "standalone.js", STATIC / "runnable.js", STATIC / "model" / "worker.js"
IMPORT = re.compile(r'^import (\{[^}]*\}) from "(\.[./\w]+\.js)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
POLICY += "worker-src blob:"


def page(
    snapshots: Sequence[bytes],
    *,
    title: str,
    view: str = "",
    steps_of: int | None = None,
    model: Mapping[str, Any] | None = None,
) -> str:
    """The page that shows `snapshots` of one run at several steps, all with the same probes.

    `title` names the run. `view` is the view that the page opens with, as the tab writes it after "#" in its links.
    `steps_of` is how many steps the run has in all: the page says how many of them it holds.
    `model`, as `minitx.interop.model_page` makes it, is run on the texts that a visitor types.
    """
    encoded = [base64.b64encode(content).decode("ascii") for content in snapshots]
    data: dict[str, Any] = {"title": title, "view": view, "snapshots": encoded, "steps_of": steps_of or len(encoded)}
    data |= {} if model is None else {"model": model, "worker": script(WORKER_ENTRY)}
    held = "" if steps_of is None else f" · {len(encoded)} of {steps_of} steps"
    return (
        STATIC.with_name("page.html")
        .read_text("utf-8")
        .format(
            policy=html.escape(POLICY),
            title=html.escape(f"{title}{held}"),
            style=style(),
            data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
            script=script(ENTRY if model is None else MODEL_ENTRY),
        )
    )


def style() -> str:
    """The style of the viewer, then those of its views."""
    files = [STATIC / "style.css", *sorted((STATIC / "views").glob("*.css"))]
    return "\n".join(file.read_text("utf-8") for file in files)


def script(entry: Path = ENTRY) -> str:
    """The modules of a page as one script."""
    return "\n".join(map(as_function, modules(entry)))


def as_function(file: Path) -> str:
    """A module as a function that is called at once and returns what the module exports."""
    text = file.read_text("utf-8")
    names = ", ".join(name for _, name in EXPORT.findall(text))
    text = IMPORT.sub(lambda found: f"const {found[1]} = {variable(file, found[2])};", text)
    text = EXPORT.sub(r"\1 \2", text)
    return f"const {variable(file, file.name)} = (() => {{\n{text}\nreturn {{ {names} }};\n}})();"


def variable(importer: Path, name: str) -> str:
    """The variable of the module that `importer` calls `name`."""
    path = (importer.parent / name).resolve().relative_to(STATIC.resolve())
    return "$".join(path.with_suffix("").parts)


def modules(entry: Path) -> list[Path]:
    """The files that `entry` imports, every one after those it imports itself, then `entry`."""
    files: list[Path] = []
    for _, name in IMPORT.findall(entry.read_text("utf-8")):
        files += [file for file in modules((entry.parent / name).resolve()) if file not in files]
    return [*files, entry]
