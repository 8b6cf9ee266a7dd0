"""A self-contained HTML file of snapshots: the tab's own modules, style and data in one page that needs no server.

`write_html` is what `generate.py --attention`, `minitx heads --html` and the tab's own button end in.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

STATIC = Path(__file__).parent / "static"
MODULES = (
    "dom", "theme", "snapshot", "state", "source", "labels", "draw", "lines", "chart", "stage", "survey", "skeleton",
    "picture", "gather", "contents", "controls", "viewer", "page",
)  # fmt: skip
"""The viewer's modules, each after what it imports from. `index.js`, TensorBoard's way in, is not among them."""
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:"


def write_html(file: Path, snapshots: Sequence[bytes], *, title: str, view: str = "") -> None:
    """Write `page(…)` to `file`; raises OSError where that cannot be done."""
    file.write_text(page(snapshots, title=title, view=view), "utf-8")


def page(snapshots: Sequence[bytes], *, title: str, view: str = "") -> str:
    """The page that shows `snapshots`, of one run at different steps, all with the same probes.

    `title` names the run. `view` is a link of the tab, what stands after "#" in the address, that the page opens with.
    """
    data = {
        "title": title,
        "view": view,
        "snapshots": [base64.b64encode(content).decode("ascii") for content in snapshots],
    }
    return PAGE.format(
        policy=html.escape(POLICY),
        title=html.escape(title),
        style=(STATIC / "style.css").read_text("utf-8"),
        data=json.dumps(data).replace("<", "\\u003c"),
        script=script(),
    )


def script() -> str:
    """All modules in one, without their imports and exports: top-level names are unique across them."""
    parts = [(STATIC / f"{name}.js").read_text("utf-8") for name in MODULES]
    return "\n".join(EXPORT.sub("", IMPORT.sub("", part)) for part in parts)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention · {title}</title>
<style>
{style}</style>
</head>
<body>
<script type="application/json" id="data">{data}</script>
<script type="module">
{script}</script>
</body>
</html>
"""
