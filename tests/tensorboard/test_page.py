"""The self-contained HTML file: one script of all modules, nothing loaded from elsewhere, and text stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from minitx.commands.shared import write_page
from minitx.heads.scores import IMPORTANCE, SCORES
from minitx.heads.snapshots import PlacedLink, ShownProbe, encode
from minitx.system.errors import UserError
from minitx.tensorboard.plugin.page import ENTRY, MODEL_ENTRY, STATIC, WORKER_ENTRY, modules, page, script
from tests.heads.test_snapshots import patterns
from tests.tensorboard.browser import Page, chromium, needs_browser

NASTY = '</script><script>document.title="hit"</script><img src=x onerror="document.title=\'hit\'">'


def write_html(file: Path, snapshots: Sequence[bytes], *, title: str, view: str = "") -> None:
    """As the verbs with --html do."""
    write_page(str(file), page(snapshots, title=title, view=view))


def snapshot(step: int = 5, text: str = "a text") -> bytes:
    return encode(step, [ShownProbe(text, [text, "b", "c"], patterns(2, 2, 3, seed=step))])


ENTRIES = [ENTRY, MODEL_ENTRY, WORKER_ENTRY, STATIC / "walkthrough.js"]
ROOMS = ["state", "model", "data", "draw", "views", "frame"]
"""A module imports only from its own room and those before it."""


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_module_is_in_the_page_after_what_it_imports(entry: Path) -> None:
    files = modules(entry)
    entered = {module for entry in ENTRIES for module in modules(entry)} | {STATIC / "index.js"}
    assert entered == {*STATIC.rglob("*.js")}
    assert len(files) == len(set(files))
    for place, file in enumerate(files):
        text = file.read_text("utf-8")
        imported = [(file.parent / name).resolve() for name in re.findall(r'from "(.+?\.js)"', text)]
        assert set(imported) <= set(files[:place]), file.name
        assert len(re.findall(r"^import ", text, re.MULTILINE)) == len(imported), file.name
        assert len(text.splitlines()) <= 300, f"{file.name} has two subjects"
        if file.parent != STATIC:
            before = ROOMS[: ROOMS.index(file.parent.name) + 1]
            assert {one.parent.name for one in imported} <= set(before), file.name


def test_nothing_of_the_modules_is_left_in_the_script() -> None:
    for entry in ENTRIES:
        assert not re.search(r"^(import|export)\b", script(entry), re.MULTILINE), entry.name


def test_no_file_asks_for_anything_from_elsewhere_or_writes_markup() -> None:
    for file in filter(Path.is_file, STATIC.rglob("*")):
        text = file.read_text("utf-8")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            file.name
        )


def test_texts_cannot_leave_the_data() -> None:
    made = page([snapshot(text=NASTY)], title=NASTY, view=NASTY)
    assert made.count("<script") == 2 and made.count("</script>") == 2
    assert "<img" not in made and "<title>Attention · &lt;/script&gt;" in made


def test_it_is_written_where_asked(tmp_path: Path) -> None:
    write_html(tmp_path / "a.html", [snapshot()], title="run")
    assert (tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(UserError, match="name another file"):
        write_html(tmp_path / "nowhere" / "a.html", [snapshot()], title="run")


def test_the_viewer_says_of_each_score_what_it_is() -> None:
    meanings = dict(
        re.findall(r'^  (\w+): "(.+)",$', (STATIC / "state" / "scores.js").read_text("utf-8"), re.MULTILINE)
    )
    described = {name: score.description for name, score in SCORES.items()} | {"importance": IMPORTANCE}
    assert {name: meanings.get(name) for name in described} == described


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_heads_are_coloured_by_importance_from_nothing_and_by_gains_around_zero(tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "heads.html"
    probe = ShownProbe("a", ["a", "b", "c"], patterns(1, 5, 3))
    scores = {
        "importance": np.array([[0.02, 0.03, 0.04, 0, np.nan]]),
        "gain": np.array([[-0.5, 0, 0.25, 1, np.nan]]),
        "distance": np.array([[2.0, 3, 4, 2, np.nan]]),
    }
    write_html(file, [encode(1, [probe], scores)], title="run")
    nothing, most = ("23 26 33", "253 234 166") if dark else ("244 246 251", "11 42 94")
    with chromium() as browser, Page(browser, f"{file.as_uri()}#score=importance", dark=dark) as shown:

        def colours() -> list[str]:
            colours = shown.tab.eval_on_selector_all(".caption", "all => all.map(one => one.style.background)")
            return [re.sub(r"rgb\(|\)|,", "", colour) for colour in colours]

        shown.wait("document.body.dataset.step === '1'")
        by_importance = colours()
        assert by_importance[3] == nothing and by_importance[2] == most and by_importance[4] == ""
        assert len(set(by_importance)) == 5  # half as important is half way, not nothing
        assert shown.tab.locator("select[aria-label='Score of heads']").get_attribute("title") == IMPORTANCE
        shown.tab.locator(".cell[data-head='1']").hover()
        assert "importance 0.030" in shown.tab.locator(".tooltip div").all_text_contents()
        shown.tab.locator("select[aria-label='Score of heads']").select_option("gain")
        shown.wait("document.querySelector('.caption').textContent.startsWith('-0.5')")
        by_gain = colours()
        assert [int(one) for one in by_gain[1].split()] == pytest.approx([int(one) for one in nothing.split()], abs=2)
        assert len(set(by_gain)) == 5
        shown.tab.locator("select[aria-label='Score of heads']").select_option("distance")
        shown.wait("document.querySelector('.caption').textContent.startsWith('2')")
        assert colours()[0] == colours()[3] == nothing and colours()[2] == most
        assert not shown.errors


@needs_browser
def test_the_file_shows_itself_without_a_network(tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    write_html(file, [snapshot(5, NASTY), snapshot(10, NASTY)], title=NASTY, view="view=columns&head=0&shown=0.1")
    with chromium() as browser, Page(browser, file.as_uri(), width=400) as shown:
        shown.wait("document.body.dataset.step === '10'")
        assert shown.tab.locator(".cell").count() == 4
        assert shown.tab.locator(".chip[aria-pressed=true]").all_text_contents() == ["0·0", "0·1"]
        shown.tab.locator("input[type=range]").fill("5")
        shown.wait("document.body.dataset.step === '5'")
        assert shown.tab.title().startswith("Attention · </script>")
        assert shown.tab.evaluate("document.body.scrollWidth <= window.innerWidth")
        assert not shown.errors and shown.requests == [file.as_uri()]


@needs_browser
def test_labelled_links_are_drawn_in_every_view_and_can_be_hidden(tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    link = PlacedLink("pronoun", range(2, 3), range(1))
    probe = ShownProbe("a", ["Ann", "said", "she", "slept"], patterns(1, 1, 4), [link])
    write_html(file, [encode(1, [probe])], title="run")
    with chromium() as browser, Page(browser, f"{file.as_uri()}#view=both&head=0") as shown:
        for view in ("Map", "Lines", "Arcs"):
            shown.tab.locator(".segments button", has_text=re.compile(f"^{view}$")).click()
            canvas = shown.tab.locator(".stage canvas").first
            drawn = [canvas.evaluate("canvas => canvas.toDataURL()")]
            for _ in range(2):
                shown.tab.locator("button", has_text="Links").click()
                drawn.append(canvas.evaluate("canvas => canvas.toDataURL()"))
            assert drawn[0] == drawn[2] != drawn[1], view
        assert not shown.errors


@needs_browser
def test_heads_that_pruning_removed_are_neither_offered_nor_shown_as_empty_maps(tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    weights = patterns(1, 3, 4)
    weights[0, 1] = np.nan  # what minitx.heads.record.patterns gives for a head that is gone
    write_html(file, [encode(1, [ShownProbe("a", list("abcd"), weights)])], title="run")
    with chromium() as browser, Page(browser, f"{file.as_uri()}#compare=1&view=map&head=0") as shown:
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        offered = shown.tab.locator("select[aria-label='Head to compare with'] option")
        assert offered.all_text_contents() == [
            "same head", "layer 0, head 0", "layer 0, head 1 (removed)", "layer 0, head 2",
        ]  # fmt: skip
        assert [offered.nth(place).is_disabled() for place in range(4)] == [False, False, True, False]
        assert not shown.tab.locator(".note[role=status]").is_visible()
    with chromium() as browser, Page(browser, f"{file.as_uri()}#compare=1&view=map&head=0&other_head=1") as shown:
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length === 1")
        note = shown.tab.locator(".note[role=status]").text_content()
        assert note == "The run run has no layer 0, head 1: it was removed by pruning."
        assert not shown.errors


WRITTEN = """names => {
  window.written = new Map();
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    const name = names.find((one) => text.startsWith(one));
    if (name) {
      if (!written.has(this.canvas)) written.set(this.canvas, {});
      const width = this.measureText(text).width;
      const start = { left: x, center: x - width / 2, right: x - width }[this.textAlign];
      written.get(this.canvas)[name] = [start, start + width, y, this.canvas.clientWidth];
    }
    return write.call(this, text, x, y);
  };
}"""
"""Notes where each canvas writes what begins with `names`: [left, right, baseline or middle, width of the canvas]."""


@needs_browser
def test_names_of_links_never_lie_on_each_other(tmp_path: Path) -> None:
    """Links of one word, whose names have no room side by side."""
    file = tmp_path / "heads.html"
    names = ["telescope → man", "telescope → astronomer", "with → saw"]
    spans = [(range(16, 22), range(1, 3)), (range(16, 22), range(8, 13)), (range(14, 15), range(4, 7))]
    tokens = list("abcdefghijklmnopqrstuvw")
    links = [PlacedLink(name, *span) for name, span in zip(names, spans, strict=True)]
    write_html(file, [encode(1, [ShownProbe("a", tokens, patterns(1, 2, len(tokens)), links)])], title="run")
    with chromium() as browser:
        for width, link, most in ((1280, "compare=1&", 3), (400, "compare=1&", 3), (1280, "", 2)):
            with Page(browser, f"{file.as_uri()}#{link}head=0&view=map", width=width) as shown:
                shown.wait("document.body.dataset.step === '1'")
                shown.tab.evaluate(WRITTEN, names)
                for view in ("Lines", "Arcs", "Map"):
                    drawn = shown.tab.evaluate("written.clear(); document.body.dataset.drawn")
                    shown.tab.locator(".segments button", has_text=re.compile(f"^{view}$")).click()
                    shown.wait(f"Number(document.body.dataset.drawn) > {drawn}")
                    canvases = shown.tab.evaluate("[...written.values()].map(one => Object.values(one))")
                    assert 1 <= len(canvases) <= most
                    for boxes in canvases:
                        assert len(boxes) == len(names), (width, link, view)
                        for place, (left, right, y, room) in enumerate(boxes):
                            assert view == "Arcs" or 0 <= left < right <= room, (width, link, view)  # the line scrolls
                            for other_left, other_right, other_y, _ in boxes[:place]:
                                is_apart = right <= other_left or other_right <= left or abs(y - other_y) >= 14
                                assert is_apart, (width, link, view)
                assert not shown.errors


@needs_browser
def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    write_html(file, [snapshot()[:-3]], title="run")
    with chromium() as browser, Page(browser, file.as_uri()) as shown:
        assert "cut short" in shown.tab.locator(".fault").text_content()


@needs_browser
def test_help_lies_over_the_view_and_escape_closes_it(tmp_path: Path) -> None:
    file = tmp_path / "heads.html"
    write_html(file, [snapshot()], title="run")
    with chromium() as browser, Page(browser, file.as_uri()) as shown:
        map_ = shown.tab.locator(".line").first
        before = map_.bounding_box()
        shown.tab.get_by_label("Help: keys, words and scores").click()
        assert shown.tab.get_by_text("show another head together with the chosen one").is_visible()
        assert map_.bounding_box() == before
        shown.tab.mouse.click(700, 780)
        shown.tab.get_by_text("show another head together with the chosen one").wait_for(state="hidden")
        shown.tab.get_by_label("Help: keys, words and scores").click()
        shown.tab.keyboard.press("Escape")
        shown.tab.get_by_text("show another head together with the chosen one").wait_for(state="hidden")
        assert not shown.errors
