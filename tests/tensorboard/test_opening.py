"""What a newcomer meets: the opening, the sentence, the tour, guided examples, and a page that stays still and honest.

The runs are made by hand, so that what a head attends to is known.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitx.heads import snapshots
from minitx.heads.snapshots import PlacedLink, ShownProbe, encode
from minitx.tensorboard.plugin.page import page
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_tab import frame, is_at

pytestmark = IN_BROWSER
TOKENS = ["The", "␣an", "imal", "␣slept", ".", "↵", "It", "␣dre", "amt"]
LINK = PlacedLink("It → animal", range(6, 7), range(1, 3))
LETTERS = list("kdabkdab")
LONG = "a-run-whose-name-is-much-longer-than-any-list-of-runs-should-be-wide-for-its-own-good"


def looking(seq: int, *heads: dict[int, dict[int, float]]) -> Any:
    """(head, query, key): heads that attend to the first token, but where a query has the weights of some keys."""
    patterns = np.zeros((len(heads), seq, seq))
    for pattern, queries in zip(patterns, heads, strict=True):
        for query in range(seq):
            for key, weight in queries.get(query, {0: 1.0}).items():
                pattern[query, key] = weight
    return patterns


def uniform(heads: int, seq: int) -> Any:
    return np.broadcast_to(np.tril(np.ones((seq, seq))) / np.arange(1, seq + 1)[:, None], (heads, seq, seq))


READS = {6: {1: 0.5, 2: 0.25, 0: 0.25}, 8: {2: 0.64, 8: 0.36}}


def tale(heads: int) -> ShownProbe:
    """Layer 0 has uniform attention. In layer 1 the last head reads, and the others attend to the first token."""
    seq = len(TOKENS)
    layers = [uniform(heads, seq), looking(seq, *[{}] * (heads - 1), READS)]
    return ShownProbe("The animal slept.\nIt dreamt", TOKENS, np.stack(layers), [LINK])


def repeats(weight: float) -> ShownProbe:
    """The last head attends from every second letter to what came after the first, with `weight`."""
    seq = len(LETTERS)
    follows = {query: {query - 3: weight, query: 1 - weight} for query in range(4, seq)}
    return ShownProbe("kdabkdab", LETTERS, np.stack([uniform(2, seq), looking(seq, {}, follows)]))


def write_run(run: Path, heads: int, steps: dict[int, float]) -> None:
    """Snapshots at `steps`, whose last head has that induction score."""
    run.mkdir(parents=True)
    for step, score in steps.items():
        values = np.zeros((2, heads))
        values[1, -1] = score
        texts = [tale(heads), *([repeats(score)] if heads == 2 else [])]
        snapshots.write(run, step, encode(step, texts, {"induction": values}, {"induction": 0.1}))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opening")
    write_run(folder / LONG, 1, {10: 0.1})
    write_run(folder / "one", 1, {10: 0.1, 20: 0.15})
    write_run(folder / "two", 2, {10: 0.12, 20: 0.3, 30: 0.8, 40: 0.9})
    return folder


def bars(shown: Page, line: int) -> dict[int, float]:
    """Pixels under the shaded words of a line."""
    read = "all => all.map(one => [Number(one.dataset.token), parseFloat(one.style.getPropertyValue('--bar'))])"
    shaded = shown.tab.locator(".line").nth(line).locator(".word.shaded").evaluate_all(read)
    return {int(token): float(bar) for token, bar in shaded}


def word(shown: Page, token: int, line: int = 1) -> Any:
    return shown.tab.locator(".line").nth(line).locator(f"[data-token='{token}']")


# The opening


def test_it_opens_on_the_head_whose_score_stands_out(tmp_path: Path, browser: Any) -> None:
    """Without a link that a head follows. Attention to the first token says little: a weaker habit comes before it."""
    seq = 6
    texts = [ShownProbe("text", [f"t{at}" for at in range(seq)], np.stack([uniform(2, seq)] * 2), [])]
    scores = {
        "first_token": np.array([[0.9, 0.2], [0.2, 0.2]]),
        "previous_token": np.array([[0.1, 0.2], [0.6, 0.2]]),
        "induction": np.array([[0.1, 0.2], [0.5, 0.2]]),
    }
    contents = [encode(step, texts, scores, dict.fromkeys(scores, 0.1)) for step in (1, 2)]
    (tmp_path / "a.html").write_text(page(contents, title="run"))
    with Page(browser, (tmp_path / "a.html").as_uri()) as shown:
        shown.tab.locator("body[data-step='2']").wait_for()
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 0"
        assert shown.tab.locator(".line").evaluate_all("all => all.map(one => one.dataset.head)") == ["2", "3"]
        assert shown.tab.get_by_label("Score of heads").input_value() == "previous_token"
        assert shown.tab.locator(".word.from").count() == 2, "a word is shown as if pinned"
        assert not shown.errors


def test_a_link_that_no_head_follows_is_passed_over(tmp_path: Path, browser: Any) -> None:
    patterns = np.stack([uniform(2, 4), looking(4, {}, {2: {1: 1.0}, 3: {2: 0.4, 0: 0.6}})])
    links = [PlacedLink("d → c", range(3, 4), range(2, 3)), PlacedLink("c → b", range(2, 3), range(1, 2))]
    other = looking(4, {3: {1: 0.8, 0: 0.2}}, {})
    second = [PlacedLink("h → f", range(3, 4), range(1, 2))]
    probes = [
        ShownProbe("abcd", list("abcd"), patterns, links),
        ShownProbe("efgh", list("efgh"), np.stack([other, patterns[0]]), second),
    ]
    (tmp_path / "a.html").write_text(page([encode(1, probes)], title="run"))
    with Page(browser, (tmp_path / "a.html").as_uri()) as shown:
        shown.tab.locator("body[data-step='1']").wait_for()
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 1"
        assert set(shown.tab.locator(".word.from").all_text_contents()) == {"c"}
        assert shown.tab.get_by_label("Score of heads").input_value() == "@link:1", "the chart is of that link"
        assert shown.tab.locator(".answer").text_content() == "Head 1·1 most: 1.00."
        shown.tab.get_by_label("Text", exact=True).select_option("1")
        shown.wait("document.querySelector('.answer').textContent === 'Head 0·0 most: 0.80.'")
        assert shown.tab.locator("h2").text_content() == "Layer 0, head 0", "another text opens on its own link"
        shown.tab.get_by_label("Text", exact=True).select_option("0")
        shown.wait("document.querySelector('.answer').textContent === 'Head 1·1 most: 1.00.'")
        shown.tab.get_by_label("Clear the question").click()
        shown.wait("document.querySelector('.question').hidden")
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 1"


def test_texts_that_begin_alike_are_told_apart_and_tales_are_no_role(tmp_path: Path, browser: Any) -> None:
    texts = ["It ran. The dog hid.", "It ran. The cat hid.", "So."]
    probes = [ShownProbe(text, list(text), uniform(2, len(text))[None], []) for text in texts]
    scores = {"tales_place": np.array([[0.9, 0.2]]), "tales_role": np.array([[0.8, 0.2]])}
    content = encode(1, probes, scores, dict.fromkeys(scores, 0.1), roles=[["unclassified"] * 2])
    (tmp_path / "a.html").write_text(page([content], title="run"))
    with Page(browser, (tmp_path / "a.html").as_uri()) as shown:
        shown.tab.locator("body[data-step='1']").wait_for()
        listed = shown.tab.get_by_label("Text", exact=True).locator("option").all_text_contents()
        assert listed == ["The dog hid.", "The cat hid.", "So."]
        assert shown.tab.locator(".fact.role").all_text_contents() == ["in tales: place, role"]
        shown.tab.locator(".cell[data-head='1']").click()
        shown.wait("document.querySelector('.fact.role').textContent === 'role: unclassified'")


def test_it_opens_on_the_newest_run_with_the_word_of_its_first_link(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 1"
        assert shown.tab.locator(".line").count() == 2
        assert shown.tab.get_by_label("Score of heads").input_value() == "@link:0"
        assert "“It”" in str(shown.tab.locator(".chart-title").text_content())
        assert shown.tab.locator(".word.from").all_text_contents() == ["It", "It"]
        assert bars(shown, 1) == {
            0: pytest.approx(2.25, abs=0.1),
            1: pytest.approx(3.5, abs=0.1),
            2: pytest.approx(2.25, abs=0.1),
        }
        assert (
            shown.tab.locator(".view .hint")
            .first.text_content()
            .startswith("“It” attends most to “The”: 1.00 in head 1·0.")
        )
        text, score = (shown.tab.get_by_label(name, exact=True) for name in ("Text", "Score of heads"))
        for number, opened in (("1", "induction"), ("0", "@link:0")):  # a text without links, and back
            text.select_option(number)
            shown.wait(f"document.querySelector('select[aria-label^=Score]').value === '{opened}'")
            assert score.input_value() == opened
    with Page(browser, frame(server, "")) as shown:
        shown.wait(is_at(40))
        assert shown.tab.locator("select[aria-label=Run]").input_value() == "two"


def test_the_tour_is_shown_once_to_those_who_come_without_a_link(browser: Any, server: str) -> None:
    tour = ".tour"
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        assert shown.tab.locator(tour).count() == 0, "a link by others comes without a tour"
        shown.tab.goto("about:blank")
        shown.tab.goto(frame(server, ""))
        for count in ("1 of 3", "2 of 3", "3 of 3"):
            shown.tab.locator(tour, has_text=count).wait_for()
            shown.tab.locator(f"{tour} button").last.click()
        shown.tab.locator(tour).wait_for(state="detached")
        shown.tab.goto("about:blank")
        shown.tab.goto(frame(server, ""))
        shown.wait(is_at(40))
        assert shown.tab.locator(tour).count() == 0
        shown.tab.get_by_label("Help").click()
        shown.tab.locator("button", has_text="Show the tour").click()
        shown.tab.locator(tour, has_text="1 of 3").wait_for()
        shown.tab.keyboard.press("Escape")
        shown.tab.locator(tour).wait_for(state="detached")
        shown.tab.add_init_script(
            "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })"
        )
        shown.tab.goto("about:blank")
        shown.tab.goto(frame(server, ""))
        shown.wait(is_at(40))
        assert not shown.errors


def test_guided_examples_say_what_the_snapshots_hold(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        menu = shown.tab.locator("button", has_text="Guided examples")
        menu.click()
        entries = shown.tab.locator(".guide-entry")
        entries.first.wait_for()
        texts = entries.all_text_contents()
        assert texts[0] == (
            "The induction head“k” attends to “d”, which came right after an earlier “k”. "
            "Head 1·1 gives it 0.90 of the attention. Half of this habit was there by step 30."
        )
        assert any("Head 1·1 follows “It → animal” most: 0.75 of the attention." in text for text in texts)
        beside = next(text for text in texts if text.startswith("2 heads or one head"))
        assert "In two (2 heads a layer) head 1·1 follows “It → animal” most: 0.75. In " in beside
        assert beside.endswith("The runs also differ in steps.")
        entries.first.click()
        shown.wait(
            "document.querySelectorAll('.word.from').length && document.querySelector('.word.from').textContent === 'k'"
        )
        assert shown.tab.locator(".word.from").first.get_attribute("data-token") == "4"
        assert shown.tab.locator("select[aria-label='Score of heads']").input_value() == "induction"
        assert shown.tab.locator(".guide").text_content().startswith("The induction head: ")
        shown.tab.locator(".cell[data-head='0']").click()
        shown.tab.locator(".guide").wait_for(state="hidden")
        menu.click()
        entries.first.wait_for()
        shown.tab.keyboard.press("Escape")
        entries.first.wait_for(state="hidden")
        menu.click()
        entries.filter(has_text="It → animal").last.click()
        shown.tab.locator(".answer", has_text="Head 1·1 most: 0.75").wait_for()
        menu.click()
        entries.filter(has_text="2 heads or one head").click()
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        assert not shown.errors


# The sentence


def test_words_are_shaded_by_weight_in_both_directions_and_stay_where_they_are(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        text = shown.tab.locator(".words").first
        assert text.text_content() == "The animal slept.↵\nIt dreamt"
        assert shown.tab.locator(".line").first.locator(".piece").all_text_contents() == ["imal", "amt"]
        assert word(shown, 6).bounding_box()["y"] > word(shown, 4).bounding_box()["y"], "the text keeps its lines"
        gap = (
            word(shown, 2).bounding_box()["x"]
            - word(shown, 1).bounding_box()["x"]
            - word(shown, 1).bounding_box()["width"]
        )
        assert gap <= 0, "the pieces of a word join"
        places = "all => all.map(one => { const box = one.getBoundingClientRect(); return [box.x, box.y, box.width]; })"
        before = shown.tab.locator(".word").evaluate_all(places)
        word(shown, 8).hover()
        shown.wait("document.querySelector('.word.from').dataset.token === '8'")
        assert bars(shown, 1) == {2: pytest.approx(1 + 5 * 0.64, abs=0.1), 8: pytest.approx(1 + 5 * 0.36, abs=0.1)}
        assert shown.tab.locator(".word").evaluate_all(places) == before
        assert "1·1 attends to imal 0.64, amt 0.36" in shown.tab.locator(".tooltip").inner_text()
        shown.tab.locator("button", has_text="is attended to by").click()
        word(shown, 2).hover()
        shown.wait("document.querySelector('.word.from').dataset.token === '2'")
        assert bars(shown, 1) == {6: pytest.approx(2.25, abs=0.1), 8: pytest.approx(4.2, abs=0.1)}
        assert not shown.errors


def test_the_sentence_is_walked_by_keys(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        shown.tab.locator(".words").nth(1).focus()
        shown.tab.keyboard.press("ArrowRight")
        shown.tab.keyboard.press("ArrowRight")
        assert shown.tab.locator(".word.from").first.get_attribute("data-token") == "8"
        assert "imal 0.64" in shown.tab.locator(".spoken").text_content()
        shown.tab.keyboard.press("ArrowUp")
        above = int(shown.tab.locator(".word.from").first.get_attribute("data-token"))
        assert above < 6
        shown.tab.keyboard.press("Enter")
        shown.wait(f"decodeURIComponent(location.hash).includes('token={above}.')")
        shown.tab.keyboard.press("Escape")
        shown.wait("!decodeURIComponent(location.hash).includes('token=')")
        assert shown.tab.locator(".word.from").first.text_content() == "It"
        assert shown.tab.locator("h2").text_content() == "Layer 1, head 1", "the keys do not move to another head"
        assert not shown.errors


def test_one_line_has_a_bar_for_each_head_and_fits_a_phone(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two&together=1"), width=390, height=844) as shown:
        shown.wait(is_at(40))
        assert shown.tab.locator(".line").count() == 1 and shown.tab.locator(".line .name").count() == 2
        layers = "one => getComputedStyle(one).backgroundSize.split(', ').map(size => parseFloat(size.split(' ')[1]))"
        first, second = word(shown, 0, 0).evaluate(layers)
        assert first == pytest.approx(6, abs=0.1) and second == pytest.approx(2.25, abs=0.1)
        first, second = word(shown, 1, 0).evaluate(layers)
        assert first == 0 and second == pytest.approx(3.5, abs=0.1)
        assert shown.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not shown.errors


# The page stays still


def test_nothing_is_cut_off_or_jumps(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two&view=columns&compare=1&other_run=one")) as shown:
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length >= 2")
        fits = "all => all.every(box => Math.abs(box.clientHeight - box.firstChild.clientHeight) <= 1)"
        boxes = shown.tab.locator(".stage:not([hidden]) .stage-box")
        height = boxes.first.bounding_box()["height"]
        score = shown.tab.locator("select[aria-label='Score of heads']")
        for name in ("", "induction"):
            score.select_option(name)
            shown.wait(f"(document.querySelector('.chart-box').hidden) === {'true' if not name else 'false'}")
            assert boxes.evaluate_all(fits), "the canvas takes the room that is left"
        assert boxes.first.bounding_box()["height"] == height
        slider = shown.tab.locator("input[type=range]")
        before = slider.bounding_box()
        shown.tab.locator("button[aria-label=Play]").click()
        shown.tab.locator("button[aria-label=Pause]").wait_for()
        assert slider.bounding_box() == before
        shown.tab.locator("button[aria-label=Pause]").click()
        shown.tab.locator("select[aria-label='Run to compare with']").select_option(LONG)
        shown.wait(f"document.querySelectorAll('.stage h3')[1].textContent.startsWith('{LONG}')")
        for name in ("Run to compare with", "Step to compare with", "Head to compare with"):
            box = shown.tab.locator(f"select[aria-label='{name}']").bounding_box()
            assert box["x"] + box["width"] <= 1272, name
        tops = shown.tab.locator(".views button").evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")
        assert len(set(tops)) == 1, "the views stand in one line"
        assert not shown.errors


def test_words_beside_lines_stay_where_they_are(browser: Any, server: str) -> None:
    """They jumped aside to make room for bars when the pointer came near."""
    with Page(browser, frame(server, "run=two&view=columns")) as shown:
        shown.wait(is_at(40))
        box = shown.tab.locator(".stage-box").first.bounding_box()
        row = (shown.tab.locator(".stage-box canvas").first.bounding_box()["height"] - 32) / 9
        lower = {"x": box["x"], "y": box["y"] + 24 + 26 * 5, "width": box["width"] * 0.2, "height": min(row, 26) * 3}
        shown.tab.mouse.move(5, 5)
        before = shown.tab.screenshot(clip=lower)
        shown.tab.mouse.move(box["x"] + 60, box["y"] + 24 + 13)
        shown.wait("!document.querySelector('.tooltip').hidden")
        shown.tab.locator(".tooltip").evaluate("one => one.style.visibility = 'hidden'")
        assert shown.tab.screenshot(clip=lower) == before


# The page stays honest


def test_while_another_run_loads_the_old_picture_is_dimmed_and_the_link_names_the_new_run(
    browser: Any, server: str
) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        go = threading.Event()
        held: list[Any] = []
        shown.tab.route("**/snapshot?run=one*", lambda route: held.append(route))
        shown.tab.locator("select[aria-label=Run]").select_option("one")
        shown.wait("document.body.classList.contains('busy')")
        assert shown.tab.locator("select[aria-label=Run]").input_value() == "one"
        shown.tab.locator("button[title^='Copy a link']").click()
        assert "run%3Done" in shown.tab.locator(".link-text").input_value()
        assert shown.tab.locator("main").evaluate("one => getComputedStyle(one).opacity") < "0.5"
        for _ in range(200):
            if held:
                break
            go.wait(0.05)
            shown.tab.evaluate("0")
        held.pop().continue_()
        shown.tab.unroute("**/snapshot?run=one*")
        shown.wait("document.body.dataset.step === '20' && !document.body.classList.contains('busy')")
        assert not shown.errors


def test_after_a_failed_request_the_last_picture_stays_with_one_sentence(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        shown.tab.route("**/snapshot?*", lambda route: route.abort())
        shown.tab.route("**/runs", lambda route: route.abort())
        shown.tab.locator("input[type=range]").fill("10")
        shown.tab.locator(".fault", has_text="TensorBoard does not answer").wait_for()
        assert shown.tab.locator(".word.from").first.text_content() == "It"
        assert shown.tab.locator(".step").text_content() == "step 40", "the step of the picture, not of the slider"
        assert shown.tab.locator(".note:visible, .fault:visible").count() == 1
        shown.tab.unroute_all()
        shown.wait(is_at(10))
        shown.tab.locator(".fault").wait_for(state="hidden")


def test_compare_opens_with_something_else(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two&view=map")) as shown:
        shown.wait(is_at(40))
        shown.tab.locator("button", has_text="Compare").click()
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length >= 2")
        assert shown.tab.locator("select[aria-label='Run to compare with']").input_value() != "two"


def test_a_damaged_snapshot_first_is_one_sentence_and_the_rest_works(browser: Any, server: str, logs: Path) -> None:
    whole = snapshots.path(logs / "two", 40).read_bytes()
    damaged = snapshots.path(logs / "two", 50)
    try:
        damaged.write_bytes(whole[: len(whole) // 3])
        with Page(browser, frame(server, "run=two")) as shown:
            shown.tab.locator(".fault:visible").wait_for()
            assert shown.tab.locator(".fault").text_content() == "Step 50: This snapshot is cut short."
            assert shown.tab.locator(".note:visible").count() == 0
            assert shown.tab.locator(".step").text_content() == "step 40", "the nearest earlier picture"
            assert shown.tab.locator(".line").count() > 0
            shown.tab.locator("input[type=range]").fill("30")
            shown.wait(is_at(30))
            assert shown.tab.locator(".line").count() > 0 and shown.tab.locator(".fault:visible").count() == 0
            assert not shown.errors
    finally:
        damaged.unlink()


def test_the_address_follows_and_opens_the_same_view_again(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        word(shown, 3).click()
        shown.tab.locator("button", has_text="one line").click()
        shown.tab.locator("input[type=range]").fill("20")
        shown.wait(is_at(20))
        shown.tab.locator("button[title^='Copy a link']").click()
        assert shown.tab.locator("button", has_text="Copied").is_visible()
        address = shown.tab.locator(".link-text").input_value()
        assert shown.tab.evaluate("location.hash") == address[address.index("#") :]
        shown.tab.reload()
        shown.wait(is_at(20))
        assert shown.tab.locator(".line.together .word.from").text_content() == "slept"
        assert not shown.errors
