"""What is taken away from the tab: pictures, drawings, films, links. Another program reads them than wrote them."""

from __future__ import annotations

import base64
import io
import itertools
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageSequence

from minitx.heads.snapshots import PlacedLink, ShownProbe, encode, write
from minitx.tensorboard.plugin.page import EXPORT, STATIC, page, script, variable
from tests.heads.test_snapshots import patterns
from tests.tensorboard.browser import IN_BROWSER, SLOW, Page
from tests.tensorboard.test_tab import frame, tensorboard

pytestmark = IN_BROWSER
TOKENS = ["Ann", "␣<said>", "␣she", "␣slept", "␣&", "␣dreamt", "."]
STEPS = [2, 4, 6, 8]


def snapshot(step: int) -> bytes:
    """A step whose patterns and scores differ from those of every other."""
    probe = ShownProbe("Ann <said> she slept & dreamt.", TOKENS, patterns(2, 2, 7, seed=step), [
        PlacedLink("she → Ann", range(2, 3), range(1))
    ])  # fmt: skip
    scores = {"previous_token": np.array([[0.1, 0.2], [0.3, step / 10]])}
    return encode(step, [probe], scores)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("export") / "heads.html"
    made.write_text(page([snapshot(step) for step in STEPS], title="trial"), "utf-8")
    return made


def until(shown: Page, condition: str) -> None:
    """As Page.wait, but asked from here: a self-contained file lets no one evaluate texts in it."""
    for _ in range(SLOW // 50):
        if shown.tab.evaluate(condition):
            return
        shown.tab.wait_for_timeout(50)
    raise AssertionError(condition)


def opened(browser: Any, file: Path, link: str, *, step: int = STEPS[-1], **screen: Any) -> Page:
    shown = Page(browser, f"{file.as_uri()}#{link}", **screen)
    until(shown, f"document.body.dataset.step === '{step}'")
    return shown


def picture_of(shown: Page) -> Image.Image:
    with Image.open(shown.save("PNG")) as image:
        return image.convert("RGB")


def pixels(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("view", "dark"), [("sentence", False), ("both", True), ("map", False), ("columns", False), ("arcs", True)]
)
def test_a_picture_is_twice_as_fine_as_the_drawing_and_both_hold_the_legend(
    browser: Any, file: Path, view: str, dark: bool
) -> None:
    """A picture of one pixel for each of the page's was blurred on a slide, and no one could tell its colours."""
    with opened(browser, file, f"view={view}&shown=0.1&head=1", dark=dark) as shown:
        drawing = ElementTree.fromstring(shown.save("SVG").read_text("utf-8"))
        picture = picture_of(shown)
        until(shown, "!document.querySelector('.menu').offsetParent")
        assert not shown.errors
        assert all(address.startswith(("file:", "blob:", "data:")) for address in shown.requests)
    size = [float(drawing.attrib[side]) for side in ("width", "height")]
    assert picture.size == tuple(round(2 * side) for side in size) and size[0] > 1200
    texts = ["".join(one.itertext()) for one in drawing.iter() if one.tag.endswith("}text")]
    assert {"trial · step 8 · layer 0, head 1", "attention", "0.25", "0·0", "0·1"} <= set(texts)
    assert "Ann <said> she slept & dreamt." in texts
    assert any(text.startswith("previous token of every head against steps") for text in texts)
    assert {token.strip("␣") for token in TOKENS} <= {text.strip("␣ ") for text in texts}
    assert not [text for text in texts if "Point at" in text], "hints what to do have no place on a slide"
    ground, head = ((30, 34, 42), (86, 180, 233)) if dark else ((255, 255, 255), (0, 114, 178))
    assert picture.getpixel((1, 1)) == ground
    assert (pixels(picture) == head).all(-1).any()


def test_a_picture_of_the_whole_model_is_not_titled_with_a_head(browser: Any, file: Path) -> None:
    with opened(browser, file, "view=what_if&head=1") as shown:
        drawing = ElementTree.fromstring(shown.save("SVG").read_text("utf-8"))
    assert "trial · step 8" in ["".join(one.itertext()) for one in drawing.iter() if one.tag.endswith("}text")]


def test_a_drawing_refers_to_nothing_outside(browser: Any, file: Path) -> None:
    """A drawing with markup in it opens in a browser only; one that asks for a file shows holes elsewhere."""
    with opened(browser, file, "view=both") as shown:
        drawing = ElementTree.fromstring(shown.save("SVG").read_text("utf-8"))
    kinds = {one.tag.partition("}")[2] for one in drawing.iter()}
    assert kinds <= {"svg", "g", "rect", "text", "path", "line", "image"}
    addresses = [value for one in drawing.iter() for name, value in one.attrib.items() if name.endswith("href")]
    assert addresses and all(address.startswith("data:image/png;base64,") for address in addresses)
    thumbnail = Image.open(io.BytesIO(base64.b64decode(addresses[0].partition(",")[2])))
    assert thumbnail.size == (7, 7)


def test_a_narrow_picture_has_the_view_below_the_survey(browser: Any, file: Path) -> None:
    with opened(browser, file, "token=3.", width=390, height=844) as shown:
        drawing = ElementTree.fromstring(shown.save("SVG").read_text("utf-8"))
    assert float(drawing.attrib["width"]) < 440 < float(drawing.attrib["height"])
    survey, view = [one for one in drawing if one.tag.endswith("}svg")][:2]
    assert float(survey.attrib["y"]) < float(view.attrib["y"]) and survey.attrib["x"] == view.attrib["x"]


def test_a_film_has_a_frame_for_each_step_and_the_view_stays_where_it_was(browser: Any, file: Path) -> None:
    with opened(browser, file, "step=4&view=map&head=3", step=4) as shown:
        still = picture_of(shown)
        with Image.open(shown.save("GIF")) as movie:
            images = [image.copy() for image in ImageSequence.Iterator(movie)]
        until(shown, "document.body.dataset.step === '4'")
        until(shown, "document.querySelector('.save button').textContent === 'Save'")
        assert shown.tab.locator(".step").text_content() == "step 4"
        assert not shown.errors
    frames, pauses = [pixels(image) for image in images], [image.info["duration"] for image in images]
    assert len(frames) == len(STEPS)
    assert all((before != after).any() for before, after in itertools.pairwise(frames))
    assert pauses[-1] > 2 * pauses[0]
    small = still.resize(frames[1].shape[1::-1], Image.Resampling.BOX)
    assert np.abs(pixels(small) - frames[1]).mean() < 2, "the frame of step 4 is the picture of step 4"


def test_a_film_can_be_stopped(browser: Any, file: Path) -> None:
    with opened(browser, file, "view=map") as shown:
        downloads: list[Any] = []
        shown.tab.on("download", lambda made: downloads.append(made))
        shown.tab.locator("button", has_text="Save").click()
        # Both in one go: a film of four steps is over before a second click could come.
        shown.tab.evaluate(
            "[...document.querySelectorAll('.menu button')].find((one) => one.textContent === 'GIF').click();"
            "window.label = document.querySelector('.save button').textContent;"
            "document.querySelector('.save button').click()"
        )
        until(shown, "document.querySelector('.save button').textContent === 'Save'")
        until(shown, f"document.body.dataset.step === '{STEPS[-1]}'")
        assert shown.tab.evaluate("window.label") == "■ GIF: step 2 of 8"
        assert not downloads and shown.tab.locator(".menu").is_hidden()


def test_the_menu_closes_by_escape_and_by_a_click_elsewhere(browser: Any, file: Path) -> None:
    with opened(browser, file, "") as shown:
        menu, save = shown.tab.locator(".menu"), shown.tab.locator("button", has_text="Save")
        for close in (lambda: shown.tab.keyboard.press("Escape"), lambda: shown.tab.locator(".facts").click()):
            save.click()
            assert menu.is_visible() and save.get_attribute("aria-expanded") == "true"
            assert menu.locator("button:visible").all_text_contents() == ["PNG", "SVG", "GIF"]  # no server for HTML
            close()
            assert menu.is_hidden() and save.get_attribute("aria-expanded") == "false"


SHOWN = """
<style>body { margin: 0; font: 16px sans-serif; color: #123456 } p { margin: 8px } p span { border-radius: 4px }</style>
<div id="root" style="width: 500px; height: 330px; overflow: hidden">
<p>A text <b>with “bold”</b> (and more) <span style="outline: 2px solid #c00; outline-offset: 1px">words</span>,
  <i>long</i> enough to be <span style="background: rgb(0 120 0 / 30%); border-bottom: 2px solid">broken into several
  lines</span>.</p>
<p style="background: linear-gradient(to right, #fa8 40%, #eef 40%); border: 1px solid #888; border-radius: 6px">bar</p>
<p style="background: linear-gradient(#08c, #08c) 0 calc(100% - 3px) / 100% 5px no-repeat">underlined by an image</p>
<p style="background: repeating-linear-gradient(135deg, transparent 0 5px, #999 5px 7px); height: 24px"></p>
<p style="width: 120px; overflow: hidden; text-overflow: ellipsis; white-space: pre">much too long for its box</p>
<div style="padding: 10px 4px; margin: 8px; background: #fd8 content-box; opacity: 0.6; text-transform: uppercase">
  faint</div>
<p data-screen>click here</p>
<details><summary style="list-style: none">a summary</summary><p>what it hides</p></details>
<svg width="200" height="40" style="fill: #06c"><rect width="90" height="30"/><text x="100" y="20">drawn</text></svg>
</div>"""


def test_what_the_page_shows_is_what_the_drawing_shows(browser: Any) -> None:
    """Two photographs are compared, for a tracer forgets a gradient, a space, or that <details> are closed."""
    tracer = STATIC / "frame" / "tracing.js"
    draw = f"""() => {{
        {script(tracer)}
        const svg = document.querySelector("svg").cloneNode();
        {variable(tracer, tracer.name)}.trace(document.getElementById("root"), svg, 0, 0);
        for (const [name, value] of [["width", 500], ["height", 330]]) svg.setAttribute(name, value);
        return new XMLSerializer().serializeToString(svg);
    }}"""
    with Page(browser, "about:blank", width=500, height=330) as blank:
        blank.tab.set_content(SHOWN)
        drawing = blank.tab.evaluate(draw)
        blank.tab.evaluate("document.querySelector('[data-screen]').style.visibility = 'hidden'")
        screen = Image.open(io.BytesIO(blank.tab.screenshot()))
        blank.tab.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{drawing}")
        again = Image.open(io.BytesIO(blank.tab.screenshot()))
        assert not blank.errors
    assert "click here" not in drawing and "what it hides" not in drawing and "much too" in drawing
    difference = np.abs(pixels(screen) - pixels(again)).max(-1)
    assert pixels(screen).std() > 20 and difference.mean() < 0.5, "a letter may lie half a pixel beside its place"
    blocks = difference[:330, :500].reshape(33, 10, 50, 10).mean((1, 3))
    assert blocks.max() < 25, np.argwhere(blocks >= 25)


def gifs(browser: Any, *films: list[Any]) -> list[Image.Image]:
    """Each of `films`, frames (height, width, 4), as the tab's encoder writes it."""
    encoder = EXPORT.sub(r"\1 \2", (STATIC / "data" / "gif.js").read_text("utf-8"))
    run = """(films) => films.map(([height, width, frames]) => {
        const gif = createGif(width, height);
        const bytes = (text) => Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));
        for (const frame of frames) gif.add(bytes(frame), 7);
        return btoa(Array.from(gif.bytes(), (byte) => String.fromCharCode(byte)).join(""));
    })"""
    texts = [[base64.b64encode(frame.astype(np.uint8).tobytes()).decode() for frame in frames] for frames in films]
    given = [[*frames[0].shape[:2], encoded] for frames, encoded in zip(films, texts, strict=True)]
    with Page(browser, "about:blank") as blank:
        made = blank.tab.evaluate(f"(given) => {{ {encoder}; return ({run})(given); }}", given)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in made]


def drawn(image: Image.Image) -> list[Any]:
    frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    assert {frame.info["duration"] for frame in frames} == {70}
    return [pixels(frame) for frame in frames]


def opaque(colour: Any) -> Any:
    return np.concatenate([colour, np.full((*colour.shape[:-1], 1), 255)], -1)


def test_codes_of_every_width_are_read_back_exactly(browser: Any) -> None:
    """At 512, 1024 … 4096 codes the writer widens them or begins anew, at the very pixel at which a reader does."""
    generator = np.random.default_rng(0)
    palette = opaque(generator.permutation(32**3)[:200, None] // np.array([1024, 32, 1]) % 32 * 8)
    widths = [1, 2, *range(250, 262), *range(505, 515), *range(760, 772), 1000, 5000, 50000]
    rows = [palette[generator.integers(0, 200, (1, width))] for width in widths]
    for row, made in zip(rows, gifs(browser, *([row] for row in rows)), strict=True):
        assert (drawn(made)[0] == row[..., :3]).all(), row.shape


def test_only_what_changes_is_written_and_frames_that_do_not_change_stay(browser: Any) -> None:
    first = opaque(np.full((40, 50, 3), [248, 8, 80]))
    second = first.copy()
    second[10:12, 30:33] = [0, 0, 248, 255]
    (made,) = gifs(browser, [first, second, second, first])
    shown = drawn(made)
    assert len(shown) == 4
    for frame_shown, wanted in zip(shown, [first, second, second, first], strict=True):
        assert (frame_shown == wanted[..., :3]).all()
    made.seek(1)
    assert getattr(made, "tile")[0][1] == (30, 10, 33, 12)  # noqa: B009  # left, top, right, bottom: Pillow types no tile


def test_many_colours_are_near_and_large_areas_exact(browser: Any) -> None:
    """A page is mostly a few colours: those must not shift, whatever the others do."""
    generator = np.random.default_rng(1)
    frame_given = opaque(generator.integers(0, 256, (100, 100, 3)))
    frame_given[:50] = [244, 246, 251, 255]
    (made,) = gifs(browser, [frame_given])
    (shown,) = drawn(made)
    assert (shown[:50] == [244, 246, 251]).mean() > 0.99
    error = np.abs(shown[50:] - frame_given[50:, :, :3])
    assert error.mean() < 16 and error.max() < 100


def test_a_link_says_that_it_is_copied_and_a_reload_keeps_the_view(browser: Any, file: Path) -> None:
    """The link was copied without a word, the address bar stayed as it was, and a reload opened the first view."""
    with opened(browser, file, "") as shown:
        shown.tab.locator("button", has_text="Arcs").click()
        shown.tab.locator(".cell[data-head='3']").click()
        shown.tab.locator("input[type=range]").fill("6")
        until(shown, "document.body.dataset.step === '6'")
        link = shown.tab.locator("button[title^='Copy a link']")
        link.click()
        assert link.text_content() == "Copied" and shown.tab.locator(".spoken").text_content() == "Link copied"
        assert shown.tab.locator(".link-text").input_value() == shown.tab.url
        until(shown, "document.querySelector(\"button[title^='Copy a link']\").textContent === 'Link'")
        shown.tab.reload()
        until(shown, "document.body.dataset.step === '6'")
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 1"
        assert shown.tab.locator("button[aria-pressed=true]", has_text="Arcs").count() == 1


def test_in_tensorboard_the_address_bar_follows_the_view(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    for step in STEPS:
        write(tmp_path / "trial", step, snapshot(step))
    with tensorboard(tmp_path) as address:
        with Page(browser, f"{address}/#attention") as shown:
            inside = shown.tab.frame_locator("iframe")
            inside.locator(".cell[data-head='2']").click()
            inside.locator("button", has_text="Arcs").click()
            shown.wait("location.hash.includes('arcs')")
            assert re.match(r"#attention&p\.attention\.view=.*head=2", unquote(shown.tab.evaluate("location.hash")))
            shown.tab.reload()
            inside.locator("button[aria-pressed=true]", has_text="Arcs").wait_for()
            assert inside.locator("h2").text_content() == "Layer 1, head 0"
            assert not shown.errors
        with Page(browser, frame(address, "run=trial&view=map")) as shown:  # TensorBoard's policy allows all kinds
            shown.wait(f"document.body.dataset.step === '{STEPS[-1]}'")
            assert shown.save("PNG").read_bytes().startswith(b"\x89PNG")
            assert shown.save("SVG").read_text("utf-8").startswith("<svg")
            assert shown.save("GIF").read_bytes().startswith(b"GIF89a")
            assert "<title>Attention · trial" in shown.save("HTML").read_text("utf-8")
            assert not shown.errors
            assert all(one.startswith((address, "blob:", "data:")) for one in shown.requests)
