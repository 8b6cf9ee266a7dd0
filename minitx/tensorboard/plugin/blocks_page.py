"""Makes a self-contained HTML page of one layer as blocks, with the steps of a walkthrough folded below."""

import html
import json
from typing import Any

from minitx.tensorboard.plugin.page import POLICY, STATIC, script, style


def blocks_page(data: dict[str, Any], steps: str, *, title: str) -> str:
    """The page of `data`, from `heads.blocks.page_data`, and of `steps` in HTML; `title` names run and layer."""
    return (
        STATIC.with_name("blocks.html")
        .read_text("utf-8")
        .format(
            policy=html.escape(POLICY),
            title=html.escape(title),
            style=style(),
            steps=steps,
            data=json.dumps(data).replace("<", "\\u003c"),
            script=script(STATIC / "walkthrough.js"),
        )
    )
