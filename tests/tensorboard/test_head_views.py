"""The views of heads in the Attention tab: strongest examples and the scatter, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitx.heads import examples_file, snapshots
from minitx.heads.examples_file import Examples, HeadExamples, Place
from minitx.heads.snapshots import ShownProbe, encode
from minitx.tensorboard.plugin.page import page as page_of
from tests.heads.test_snapshots import patterns
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_tab import frame, is_at

pytestmark = IN_BROWSER
STEPS = (10, 20, 30)
MARKUP = "<img src=x onerror=alert(1)>"


def scores(step: int) -> dict[str, Any]:
    """(layer, head): head 3 rises with the steps, head 2 has no induction."""
    induction = np.array([[0.1, 0.2], [np.nan, step / 40]])
    previous = np.array([[0.4, 0.3], [0.2, 0.1 + step / 100]])
    return {"induction": induction, "previous_token": previous, "entropy": np.array([[1.0, 2], [3, 4]])}


def snapshot(step: int) -> bytes:
    shown = ShownProbe("a text", ["a", "␣te", "xt"], patterns(2, 2, 3, seed=step))
    chance = {"induction": 0.05, "previous_token": 0.15, "entropy": 1.5}
    return encode(step, [shown], scores(step), chance)


def examples(step: int) -> Examples:
    """Two windows of 40 tokens; head 1 has two strongest places, head 2 none, the others one."""
    tokens = [f"␣{MARKUP}" if i == 2 else f"␣w{i}" for i in range(80)]
    one = HeadExamples([Place(5, 2, 0.75)], [[]] * 7 + [[Place(5, 2, 0.75)]] + [[]] * 2, [0] * 7 + [76] + [0] * 2)
    low, high = Place(45, 43, 0.05), Place(70, 44, 0.95)
    two = HeadExamples([high, low], [[low]] + [[]] * 8 + [[high]], [57] + [0] * 8 + [19])
    return Examples(step, "", 2, 2, 40, tokens, [one, two, HeadExamples([], [], []), one])


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run "good" with examples at two of its steps, and run "none" without any."""
    logs = tmp_path_factory.mktemp("views")
    for name in ("good", "none"):
        (logs / name).mkdir()
        for step in STEPS:
            snapshots.write(logs / name, step, snapshot(step))
    for step in (10, 30):
        examples_file.write(logs / "good", examples(step))
    return logs


def test_the_strongest_places_are_shown_with_their_words(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=good&view=examples&head=1")) as page:
        rows = page.tab.locator(".strongest li")
        rows.first.wait_for()
        assert rows.count() == 2
        assert page.tab.locator(".examples h3").first.text_content().startswith("Step 30, 80 tokens of validation text")
        first = rows.first
        assert first.locator(".weight").text_content() == "0.95"
        assert first.locator("p").text_content() == (
            "w40 w41 w42 w43 w44 w45 w46 w47 … w64 w65 w66 w67 w68 w69 w70 w71 w72 w73"
        )
        assert (first.locator(".query").text_content(), first.locator(".key").text_content()) == ("w70", "w44")
        styles = first.locator(".query").evaluate("word => [getComputedStyle(word).outlineStyle, word.style.length]")
        assert styles == ["solid", 0], "outlined, so that it differs from the key without colour"
        filled = first.locator(".key").evaluate("word => getComputedStyle(word).backgroundColor")
        assert filled == page.tab.locator("h2").evaluate("h => getComputedStyle(h, '::before').backgroundColor")
        shares = page.tab.locator(".tenth .share").all_text_contents()
        assert shares == ["25 %", *["0 %"] * 8, "75 %"], "from the top of the scale down"
        widths = [bar.bounding_box()["width"] for bar in page.tab.locator(".tenth .bar").all()]
        assert widths[9] == pytest.approx(3 * widths[0], rel=0.05)
        page.tab.locator("summary").last.click()
        assert page.tab.locator("details[open] p").text_content().startswith("0.050w40 w41")
        page.tab.locator("input[type=range]").fill("20")
        page.wait(is_at(20))
        title = page.tab.locator(".examples h3").first.text_content()
        assert title.startswith("Step 10 (the nearest to step 20 with examples), 80 tokens")
        page.tab.locator(".cell[data-head='2']").click()
        page.tab.locator("text=this head has no examples").wait_for()
        page.tab.locator(".cell[data-head='0']").click()
        page.tab.locator(".strongest .key", has_text=MARKUP).wait_for()
        assert page.tab.locator("img").count() == 0 and not page.errors


def test_a_run_without_examples_and_a_damaged_file_are_told(browser: Any, server: str, logs: Path) -> None:
    with Page(browser, frame(server, "run=none&view=examples&head=1")) as page:
        page.tab.locator("text=has no examples that can be read: minitx heads RUN --examples").wait_for()
        assert not page.errors
    file = examples_file.path(logs / "good", 10)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with Page(browser, frame(server, "run=good&view=examples&head=1&step=10")) as page:
        page.tab.locator("text=examples-000010.json is damaged: it is not JSON.").wait_for()
        assert page.tab.locator(".cell").count() == 4 and not page.errors
    file.write_bytes(whole)


def points(page: Page) -> dict[int, tuple[float, float]]:
    """Head → where its point is."""
    read = "all => all.map(one => [one.dataset.head, one.getAttribute('cx'), one.getAttribute('cy')].map(Number))"
    return {int(head): (x, y) for head, x, y in page.tab.eval_on_selector_all(".point", read)}


def test_heads_are_points_on_two_scores_that_move_with_the_steps(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=good&view=scatter&head=3&step=10&scatter=previous_token.induction")) as page:
        page.wait(is_at(10))
        page.tab.locator(".point").first.wait_for()
        before = points(page)
        assert sorted(before) == [0, 1, 3], "head 2 has no induction"
        for step in (10, 30):
            page.tab.locator("input[type=range]").fill(str(step))
            page.wait(is_at(step))
            now = points(page)
            assert (now[0], now[1]) == (before[0], before[1]), "the axes never move"
            chance = page.tab.eval_on_selector_all(
                ".chance", "all => all.map(one => [one.x1, one.y1].map(v => +v.baseVal.value))"
            )
            known = [(now[0], (0.4, 0.1)), (now[1], (0.3, 0.2))]
            (x0, y0), (x1, y1) = (place for place, _ in known)
            across, up = (x0 - x1) / 0.1, (y1 - y0) / 0.1  # pixels for a score of 1
            assert now[3][0] == pytest.approx(x0 + across * (0.1 + step / 100 - 0.4), abs=0.1)
            assert now[3][1] == pytest.approx(y0 + up * (step / 40 - 0.1), abs=0.1)
            assert chance[0][0] == pytest.approx(x0 + across * (0.15 - 0.4), abs=0.1)
            assert chance[1][1] == pytest.approx(y0 + up * (0.05 - 0.1), abs=0.1)
        trail = page.tab.locator(".trail").get_attribute("points").split()
        assert len(trail) == 3
        assert [float(value) for value in trail[0].split(",")] == pytest.approx(before[3], abs=0.1)
        ring = page.tab.locator(".ring")
        assert [float(ring.get_attribute(name)) for name in ("cx", "cy")] == pytest.approx(now[3])
        names = page.tab.locator(".point-name").all_text_contents()
        assert sorted(names) == ["0·0", "0·1", "1·1"] and not page.errors


def test_a_point_tells_its_scores_and_opens_its_head(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=good&view=scatter&head=3&scatter=entropy.previous_token")) as page:
        page.tab.locator(".point").first.wait_for()
        assert sorted(points(page)) == [0, 1, 2, 3]
        page.tab.locator(".point[data-head='1']").hover()
        assert page.tab.locator(".tooltip div").all_text_contents() == [
            "layer 0, head 1",
            "entropy 2.00",
            "previous token 0.30",
        ]
        page.tab.locator(".point[data-head='1']").click()
        page.wait("document.querySelector('h2').textContent === 'Layer 0, head 1'")
        page.tab.locator("select[aria-label^='Score of the vertical']").select_option("induction")
        page.wait("document.querySelectorAll('.point').length === 3")
        page.tab.locator("button[title^='Copy a link']").click()
        assert "scatter%3Dentropy.induction" in page.tab.locator(".link-text").input_value()
        page.tab.locator(".point[data-head='1']").click()
        page.tab.locator(".sentence .line[data-head='1']").wait_for()
        assert not page.errors


def test_the_scatter_follows_the_text_that_heads_are_scored_on(browser: Any, tmp_path: Path) -> None:
    """It named validation text whatever was chosen; and imported runs, scored on another text, had no choice."""
    own = {"induction": np.array([[0.9, 0.8], [0.7, 0.6]]), "previous_token": scores(10)["previous_token"]}
    probe = ShownProbe("a text", ["a", "␣te", "xt"], patterns(2, 2, 3), scores=own)
    file = tmp_path / "page.html"
    content = [encode(step, [probe], scores(step), scored_on="tales") for step in STEPS]
    file.write_text(page_of(content, title="a run", view="view=scatter&head=3"))
    with Page(browser, file.as_uri()) as page:
        page.tab.locator(".hint", has_text="Step 30, on tales.").wait_for()
        assert sorted(points(page)) == [0, 1, 3]
        chosen = page.tab.locator("select[aria-label='Text that heads are scored on']")
        assert chosen.locator("option").all_text_contents() == ["tales", "this text"]
        chosen.select_option("text")
        page.tab.locator(".hint", has_text="Step 30, on this text.").wait_for()
        assert sorted(points(page)) == [0, 1, 2, 3]
        offered = page.tab.locator("select[aria-label^='Score of the vertical'] option").all_text_contents()
        assert offered == ["induction", "previous token"]
        assert not page.errors


def test_a_file_has_the_scatter_and_says_that_it_has_no_examples(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page_of([snapshot(step) for step in STEPS], title="a run", view="view=scatter&head=3"))
    with Page(browser, file.as_uri(), width=390, height=844, dark=True) as page:
        page.tab.locator(".point").first.wait_for()
        assert sorted(points(page)) == [0, 1, 3]
        axes = [select.input_value() for select in page.tab.locator("select[aria-label^='Score of the ']").all()]
        assert axes == ["induction", "previous_token"], "of whose heads one stands furthest above chance"
        page.tab.get_by_role("button", name="Examples", exact=True).click()
        page.tab.locator("text=This file holds no examples").wait_for()
        assert not page.errors
