"""The map and the lines of long texts and many heads: labels at any zoom, and nothing runs out of its box."""

from __future__ import annotations

import http.server
import itertools
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from minitx.heads.snapshots import ShownProbe, encode
from minitx.tensorboard.plugin.page import STATIC
from tests.heads.test_snapshots import patterns
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_page import write_html

pytestmark = IN_BROWSER

TEXTS = """() => {
  window.texts = new Map();
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    if (!texts.has(this.canvas)) texts.set(this.canvas, []);
    texts.get(this.canvas).push(text);
    return write.call(this, text, x, y);
  };
}"""
"""Notes all that each canvas writes."""


def written_on_stage(page: Page) -> list[str]:
    """What the stages write when they are drawn once more."""
    page.tab.evaluate("texts.clear(); window.dispatchEvent(new Event('resize'))")
    page.tab.evaluate("document.querySelectorAll('.stage-box').forEach(one => one.dispatchEvent(new Event('scroll')))")
    script = "[...texts].filter(([canvas]) => canvas.closest('.stage')).flatMap(([, all]) => all)"
    return [str(text) for text in page.tab.evaluate(script)]


@pytest.fixture(scope="module")
def modules(browser: Any) -> Iterator[Any]:
    """A page that can import the viewer's modules."""
    handler = partial(QuietHandler, directory=str(STATIC))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        with Page(browser, f"http://localhost:{served.server_port}/style.css") as page:
            yield page.tab
        served.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("width", [1100, 640, 360, 240])
def test_twelve_heads_leave_room_for_their_lines(modules: Any, width: int) -> None:
    """Their bars once left 60 pixels and ran out of the panel."""
    layout = modules.evaluate(
        """async (width) => {
          const { columnsLayout } = await import('/draw/lines.js');
          const context = document.createElement('canvas').getContext('2d');
          return columnsLayout(context, ['␣animal', '␣straightforwardness'], width, 400, 12, '12px sans-serif');
        }""",
        width,
    )
    assert 2 * layout["beside"] <= width / 3 + 1
    assert layout["right"] - layout["left"] >= max(60, width / 4) - 1
    assert layout["left"] - layout["beside"] - layout["label"] >= 0
    assert layout["right"] + layout["beside"] + layout["label"] <= width


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One layer of two heads on 512 tokens. Token 300 of head 0 attends to token 200 alone, all else to the first."""
    made = tmp_path_factory.mktemp("long") / "long.html"
    weights = np.zeros((1, 2, 512, 512), np.float32)
    weights[..., 0] = 1
    weights[0, 0, 300, [0, 200]] = 0, 1
    write_html(made, [encode(1, [ShownProbe("a", [f"w{at}" for at in range(512)], weights)])], title="long")
    return made.as_uri()


def labels(page: Page) -> set[int]:
    """The tokens whose labels the map shows."""
    return {int(text[1:]) for text in written_on_stage(page) if re.fullmatch(r"w\d+", text)}


def test_a_long_text_is_read_as_blocks_and_zoomed(browser: Any, long: str) -> None:
    """512 tokens were a white square without a label."""
    with Page(browser, f"{long}#view=map&head=0") as page:
        page.tab.evaluate(TEXTS)
        few = sorted(labels(page))
        assert len(few) > 15 and len({b - a for a, b in itertools.pairwise(few)}) == 1
        box = page.tab.locator(".stage-box").first.bounding_box()
        canvas = ".stage canvas"
        find = """canvas => {
          const { width, height } = canvas, { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
          const dark = [];  // pixels in the darkest colour of the ramp, away from the first column and the scale
          for (let at = 0; at < data.length; at += 4) {
            const [x, y] = [(at / 4) % width, Math.floor(at / 4 / width)];
            if (data[at] === 11 && data[at + 1] === 42 && data[at + 2] === 94 && y > height / 2) dark.push([x, y]);
          }
          const left = Math.min(...dark.map(([x]) => x));
          const inside = dark.filter(([x]) => x > left + 20);
          return inside.length ? [inside.length, inside[0][0] + 1, inside[0][1] + 1] : null;
        }"""
        count, x, y = page.tab.eval_on_selector(canvas, find)
        assert count >= 9, "the one strong entry of 131,328 is seen"
        page.tab.mouse.move(box["x"] + x, box["y"] + y)
        assert page.tab.locator(".tooltip div").all_text_contents()[:3] == [
            "w300 → w200",
            "1.00",
            "token 300 to token 200",
        ]
        for _ in range(12):
            page.tab.mouse.wheel(0, -400)
        page.tab.wait_for_timeout(200)  # scrolling is drawn with the next frame
        near = labels(page)
        page.tab.mouse.move(box["x"] + x + 1, box["y"] + y)
        found = [int(one) for one in re.findall(r"\d+", str(page.tab.locator(".tooltip div").first.text_content()))]
        assert found == pytest.approx([300, 200], abs=4)  # the point stayed under the pointer
        assert set(found) <= near and 10 < len(near) < 60  # and every token has its label
        before = page.tab.evaluate("document.querySelector('.stage-box').scrollTop")
        page.tab.mouse.down()
        page.tab.mouse.move(box["x"] + x + 60, box["y"] + y + 90, steps=4)
        page.tab.mouse.up()
        assert page.tab.evaluate("document.querySelector('.stage-box').scrollTop") == pytest.approx(before - 90, abs=2)
        assert "token=" not in page.tab.evaluate("location.hash"), "a drag pins nothing"
        page.tab.locator("button", has_text="Fit").first.click()
        assert sorted(labels(page)) == few
        page.tab.get_by_label("Zoom in").first.click()
        assert len(labels(page)) > 0 and not page.errors


def test_a_drawing_of_a_zoomed_map_holds_the_part_that_is_seen(browser: Any, long: str) -> None:
    with Page(browser, f"{long}#view=map&head=0") as page:
        for _ in range(9):
            page.tab.get_by_label("Zoom in").first.click()
        page.tab.wait_for_timeout(200)
        size = page.tab.eval_on_selector(".stage-box", "box => [box.clientWidth, box.clientHeight]")
        drawing = ElementTree.fromstring(page.save("SVG").read_text("utf-8"))
        assert not page.errors
    kind = "{http://www.w3.org/2000/svg}"
    (inside,) = [group for group in drawing.iter(f"{kind}g") if "clip-path" in group.attrib]
    (clip,) = drawing.iter(f"{kind}clipPath")
    assert inside.attrib["clip-path"] == f"url(#{clip.attrib['id']})"
    move = [float(one) for one in re.findall(r"-?[\d.]+", clip[0].attrib["transform"])][4:]
    left, top, width, height, _ = [float(one) for one in re.findall(r"-?[\d.]+", clip[0].attrib["d"])]
    assert left + move[0] >= 0 and top + move[1] >= 0
    assert left + move[0] + width <= size[0] and top + move[1] + height <= size[1]
    image = next(inside.iter(f"{kind}image"))
    assert float(image.attrib["width"]) < 2 * size[0], "not the whole map"


def test_43_tokens_have_labels(browser: Any, tmp_path: Path) -> None:
    made = tmp_path / "a.html"
    write_html(made, [encode(1, [ShownProbe("a", [f"w{at}" for at in range(43)], patterns(2, 2, 43))])], title="run")
    for width, height in ((1280, 800), (390, 844)):
        with Page(browser, f"{made.as_uri()}#view=map&head=0", width=width, height=height) as page:
            page.tab.evaluate(TEXTS)
            assert len(labels(page)) >= 15
            for _ in range(3):
                page.tab.get_by_label("Zoom in").first.click()
            shown = sorted(labels(page))
            assert shown == [*range(shown[0], shown[-1] + 1)] or width == 1280  # rows and columns that are seen
