"""The survey of the Attention tab: it answers which head links two words, and colours mean one thing at all steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from minitx.heads import snapshots
from minitx.heads.snapshots import PlacedLink, ShownProbe, encode
from minitx.tensorboard.plugin.page import STATIC
from minitx.tensorboard.writer import EventWriter
from tests.heads.test_snapshots import patterns, read_patterns
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_map import TEXTS, written_on_stage
from tests.tensorboard.test_page import WRITTEN, write_html
from tests.tensorboard.test_tab import frame, is_at, pixels

pytestmark = IN_BROWSER

TOKENS = ["The", "␣animal", "␣did", "␣not", "␣cross", "␣for", "␣it", "␣was"]
IT, ANIMAL = 6, 1
LINKS = [PlacedLink("it → animal", range(6, 7), range(1, 2)), PlacedLink("cross → not", range(4, 5), range(3, 4))]
TO_ANIMAL = {100: [0.1, 0.2, 0.0, 0.3], 200: [0.1, 0.6, 0.0, 0.2], 300: [0.2, 0.7, 0.0, 0.3], 400: [0.3, 0.8, 0.0, 0.1]}
"""Step → the weight from "it" to "animal" of four heads. Head 2 looks at "not" instead, ever more."""
INDUCTION = {100: [0.1, 0.2, 0.3, 0.4], 200: [0.4, 0.1, 0.2, 0.3], 300: [0.3, 0.4, 0.1, 0.2], 400: [0.8, 0.7, 0.1, 0.2]}
RAMP_TOP = "rgb(11, 42, 94)"  # the darkest colour of the light ramp


def hand_made(step: int) -> bytes:
    """Two layers of two heads whose weights from "it" are as above; the rest goes to the first token."""
    weights = np.zeros((4, 8, 8), np.float32)
    weights[:, :, 0] = 1
    for head, weight in enumerate(TO_ANIMAL[step]):
        weights[head, IT, [0, ANIMAL]] = 1 - weight, weight
    weights[2, IT, [0, 3]] = 1 - step / 500, step / 500
    scores = {"induction": np.array(INDUCTION[step]).reshape(2, 2), "entropy": np.ones((2, 2))}
    probe = ShownProbe("The animal did not cross for it was", TOKENS, weights.reshape(2, 2, 8, 8), LINKS)
    return encode(step, [probe], scores, {"induction": 0.05})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a self-contained file of the hand-made run."""
    made = tmp_path_factory.mktemp("survey") / "survey.html"
    write_html(made, [hand_made(step) for step in TO_ANIMAL], title="run")
    return made.as_uri()


def order(page: Page) -> list[str]:
    """The heads of the survey in its order."""
    return [str(head) for head in page.tab.eval_on_selector_all(".cell", "all => all.map(one => one.dataset.head)")]


def captions(page: Page) -> dict[str, str]:
    """Head → what stands under its square."""
    script = "all => all.map(one => [one.dataset.head, one.querySelector('.caption').textContent])"
    return dict(page.tab.eval_on_selector_all(".cell", script))


def word(page: Page, token: int) -> Any:
    return page.tab.locator(f".sentence [data-token='{token}']").first


def test_a_pinned_word_ranks_and_colours_the_heads_and_the_answer_says_since_when(browser: Any, file: str) -> None:
    with Page(browser, f"{file}#score=induction&head=0") as page:
        assert order(page) == ["0", "1", "2", "3"]
        word(page, IT).click()
        assert order(page) == ["2", "1", "0", "3"] or order(page) == ["1", "2", "0", "3"]  # 0.8 both
        answer = page.tab.locator(".answer")
        assert "0.80 to “" in str(answer.text_content())
        page.tab.locator(".question select").select_option(str(ANIMAL))
        assert order(page) == ["1", "0", "3", "2"]
        assert captions(page) == {"1": "0·1  0.80", "0": "0·0  0.30", "3": "1·1  0.10", "2": "1·0  0.00"}
        assert answer.text_content() == "Head 0·1 most: 0.80; above 0.75 since step 400."
        assert (
            page.tab.locator(".cell[data-head='1'] .caption").evaluate("one => getComputedStyle(one).backgroundColor")
            == RAMP_TOP
        )
        title = page.tab.locator(".chart-title")
        assert (
            title.text_content()
            == "attention from “it” to “animal” of every head against steps; dashed: uniform attention"
        )
        page.tab.locator("input[type=range]").fill("300")
        assert answer.text_content() == "Head 0·1 most: 0.70; above 0.5 since step 200."
        page.tab.locator(".cell[data-head='3']").hover()
        assert "attention from “it” to “animal” 0.30" in page.tab.locator(".tooltip div").all_text_contents()
        link = page.tab.evaluate("location.hash.slice(1)")
        page.tab.get_by_label("Clear the question").click()
        assert order(page) == ["0", "1", "2", "3"] and captions(page)["0"] == "0.30"
        assert page.tab.locator("select[aria-label='Score of heads']").input_value() == "induction"
        assert str(title.text_content()).startswith("induction of every head") and not page.errors
    with Page(browser, f"{file}#{link}") as page:  # the question is in the link
        assert page.tab.locator(".answer").text_content() == "Head 0·1 most: 0.70; above 0.5 since step 200."


def test_a_word_without_earlier_words_and_words_nobody_links_are_said_so(browser: Any, file: str) -> None:
    with Page(browser, f"{file}#score=@pin&sort=1&token={ANIMAL}.") as page:
        assert page.tab.locator(".answer").text_content() == "It has no earlier word but the first."
    with Page(browser, f"{file}#score=@pin&sort=1&token=7.2") as page:
        assert page.tab.locator(".answer").text_content() == "No head does: at most 0.00, head 0·0."
        page.tab.keyboard.press("3")
        page.tab.locator(".stage-box").first.press("Escape")
        assert not page.tab.locator(".question").is_visible() and not page.errors


def test_a_question_that_the_text_cannot_have_is_left_out(browser: Any, file: str) -> None:
    """A link of another text, a place beyond the end, a name that is no question."""
    for link in ("score=@link:9", "score=@pin&token=90.2", "score=@pin&token=.3", "score=@pin", "score=@else"):
        with Page(browser, f"{file}#{link}") as page:
            assert order(page) == ["0", "1", "2", "3"] and not page.errors
            assert not page.tab.locator(".question").is_visible()


def test_a_labelled_link_is_asked_about_from_the_list_and_by_its_label(browser: Any, file: str) -> None:
    asked = "Head 0·1 most: 0.80; above 0.75 since step 400."
    with Page(browser, f"{file}#score=induction&head=1") as page:
        group = page.tab.locator("optgroup[label='Links of this text'] option")
        assert group.all_text_contents() == ["it → animal", "cross → not"]
        page.tab.locator("select[aria-label='Score of heads']").select_option("@link:0")
        assert page.tab.locator(".answer").text_content() == asked
        assert page.tab.locator("select[aria-label='Score of heads']").input_value() == "@link:0"
        assert "score=%40link%3A0" in page.tab.evaluate("location.hash")
        page.tab.locator(".link-label", has_text="it → animal").click()  # once more ends it
        assert not page.tab.locator(".question").is_visible()
        page.tab.evaluate(WRITTEN, [link.name for link in LINKS])
        for view in ("Map", "Lines", "Arcs"):
            page.tab.evaluate("written.clear()")
            page.tab.locator(".segments button", has_text=re.compile(f"^{view}$")).click()
            left, right, y, _ = page.tab.evaluate("[...written.values()][0]['it → animal']")
            box = page.tab.locator(".stage canvas").first.bounding_box()
            page.tab.mouse.click(box["x"] + (left + right) / 2, box["y"] + y)
            assert page.tab.locator(".answer").text_content() == asked, view
            page.tab.get_by_label("Clear the question").click()
        assert not page.errors


def test_links_carry_the_weight_of_the_chosen_head_and_those_of_other_words_are_hidden(browser: Any, file: str) -> None:
    for view in ("map", "columns", "arcs"):
        with Page(browser, f"{file}#view={view}&head=1&shown=1&score=induction") as page:
            page.tab.evaluate(TEXTS)
            assert {"it → animal 0.80", "cross → not 0.00"} <= set(written_on_stage(page)), view
        with Page(browser, f"{file}#view={view}&head=3&shown=3&score=induction&token={IT}.") as page:
            page.tab.evaluate(TEXTS)
            links = [text for text in written_on_stage(page) if "→" in text and len(text) > 6]
            assert links == ["it → animal 0.10"], view
    with Page(browser, f"{file}#head=1&score=induction") as page:
        labels = page.tab.locator(".link-label")
        assert labels.all_text_contents() == ["it → animal 0.80"]  # of the word that opens
        word(page, 4).click()
        assert labels.all_text_contents() == ["cross → not 0.00"]
        word(page, IT).click()
        assert labels.all_text_contents() == ["it → animal 0.80"]
        ends = page.tab.locator(".line").first.locator(".word.end").all_text_contents()
        assert ends == ["animal", "it"]
        page.tab.locator("button", has_text="Links").click()
        assert labels.count() == 0 and not page.errors


def test_links_have_a_colour_that_no_head_has() -> None:
    def colour(text: str) -> Any:
        return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)])

    marks = re.findall(r"--mark: (#\w{6})", (STATIC / "style.css").read_text("utf-8"))
    heads = re.search(r"const HEADS = \{(.+?)\};", (STATIC / "draw" / "theme.js").read_text("utf-8"), re.DOTALL)
    assert heads is not None and len(marks) == 3
    for mark, line in zip(marks, heads[1].strip().splitlines(), strict=False):
        for head in re.findall(r"#\w{6}", line):
            assert np.abs(colour(mark) - colour(head)).sum() > 150, (mark, head)


def test_a_colour_means_one_value_at_every_step(browser: Any, file: str) -> None:
    """Rescaled at every step, the greatest head is always darkest, and no head is seen to grow."""
    with Page(browser, f"{file}#score=induction") as page:
        seen: dict[str, set[str]] = {}
        thumbnails = []
        for step in TO_ANIMAL:
            page.tab.locator("input[type=range]").fill(str(step))
            script = "all => all.map(one => [one.textContent, one.style.background])"
            for value, colour in page.tab.eval_on_selector_all(".caption", script):
                seen.setdefault(value, set()).add(colour)
            thumbnails.append(pixels(page, ".cell[data-head='3'] canvas"))
        assert all(len(colours) == 1 for colours in seen.values()) and len(seen) == 6, seen
        assert len({*map(str, seen.values())}) == 6
        assert thumbnails[0] == thumbnails[2] != thumbnails[1]  # 0.3 at both steps, though others have grown


def test_the_order_is_kept_while_playing(browser: Any, file: str) -> None:
    with Page(browser, f"{file}#score=induction&sort=1&step=100") as page:
        assert order(page) == ["3", "2", "1", "0"]
        page.tab.evaluate("""() => {
          window.orders = [];
          const heads = () => [...document.querySelectorAll('.cell')].map(one => one.dataset.head).join('');
          const note = () => orders.push([document.body.dataset.step, heads()]);
          new MutationObserver(note).observe(document.body, { attributes: true, attributeFilter: ['data-drawn'] });
        }""")
        page.tab.locator("button[aria-label=Play]").click()
        page.tab.locator("button[aria-label=Pause]").wait_for()
        page.tab.locator("button[aria-label=Play]").wait_for()
        orders = page.tab.evaluate("orders")
        assert [step for step, _ in orders][-1] == "400"
        assert {kept for step, kept in orders if step in ("200", "300")} == {"3210"}
        assert orders[-1][1] == "0132", "after playing the order is that of the step"


# Captions, lines and the chart at sizes where they ran out of their boxes


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve layers of twelve heads on 30 tokens at two steps."""
    made = tmp_path_factory.mktemp("wide") / "wide.html"
    tokens = [f"␣token{at}" for at in range(30)]
    scores = {"importance": np.random.default_rng(0).random((12, 12)) / 100}
    contents = [
        encode(step, [ShownProbe("a", tokens, patterns(12, 12, 30, seed=step))], scores, {"importance": 0.001})
        for step in (1, 2)
    ]
    write_html(made, contents, title="wide")
    return made.as_uri()


@pytest.mark.parametrize("width", [1920, 1280, 1000, 390])
def test_captions_are_whole_or_colour_alone(browser: Any, wide: str, width: int) -> None:
    clipped = """all => all.filter(one => {
      return parseFloat(getComputedStyle(one).fontSize) > 0 && one.scrollWidth > one.clientWidth;
    }).length"""
    for link in ("score=importance", "score=importance&sort=1", "score=@pin&sort=1&token=20.5"):
        with Page(browser, f"{wide}#{link}", width=width) as page:
            assert page.tab.locator(".cell").count() == 144
            assert page.tab.eval_on_selector_all(".caption", clipped) == 0, (width, link)
            if "sort" in link:  # a ranking can be read
                size = page.tab.locator(".caption").first.evaluate("one => getComputedStyle(one).fontSize")
                assert size == "11px"
            assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_names_at_the_charts_end_are_whole_and_the_slider_lies_under_its_axis(browser: Any, wide: str) -> None:
    ends = """() => {
      const { left, right } = document.querySelector('.chart').layout;
      const boxOf = (selector) => document.querySelector(selector).getBoundingClientRect();
      const [chart, slider] = [boxOf('.chart'), boxOf('input[type=range]')];
      return [chart.left + left - slider.left, slider.right - chart.left - right];
    }"""
    for width in (1280, 390):
        with Page(browser, f"{wide}#score=importance&step=1", width=width) as page:
            page.tab.evaluate(WRITTEN, ["uniform", "0·0"])
            page.tab.locator("input[type=range]").press("ArrowRight")
            boxes = page.tab.evaluate("[...written].find(([canvas]) => canvas.className === 'chart')[1]")
            assert all(right <= room for _, right, _, room in boxes.values()) and "uniform" in boxes
            assert page.tab.evaluate(ends) == pytest.approx([8, 8], abs=1.5)  # half a thumb
            page.tab.locator("input[type=range]").press("ArrowLeft")
            page.tab.locator("button[aria-label=Play]").click()
            assert page.tab.evaluate(ends) == pytest.approx([8, 8], abs=1.5)


# With a server


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with the hand-made run, and with one of a text of 100 tokens."""
    logs = tmp_path_factory.mktemp("logs")
    for name in ("short", "long"):
        EventWriter(logs / name).close()
    for step in TO_ANIMAL:
        snapshots.write(logs / "short", step, hand_made(step))
        probe = ShownProbe("a", [f"w{at}" for at in range(100)], patterns(2, 2, 100, seed=step))
        snapshots.write(logs / "long", step, encode(step, [probe]))
    EventWriter(logs / "words").close()
    tokens, words = ["A", "␣an", "imal", "␣did", "␣i", "t"], [0, 1, 3, 4]
    weights = np.zeros((1, 2, 6, 6), np.float32)
    weights[..., 0] = 1
    weights[0, :, 4:] = [[0.3, 0.4, 0.3, 0, 0, 0], [0.4, 0.2, 0.3, 0.1, 0, 0]], [[0.6, 0, 0, 0.4, 0, 0]] * 2
    for step in (1, 2):
        probe = ShownProbe("A animal did it", tokens, weights, words=words)
        snapshots.write(logs / "words", step, encode(step, [probe]))
    (logs / "short" / "checkpoints" / "step-000250").mkdir(parents=True)
    return logs


def test_a_server_answers_like_a_file(browser: Any, server: str) -> None:
    link = f"run=short&score=@pin&sort=1&token={IT}.{ANIMAL}"
    with Page(browser, frame(server, link)) as page:
        page.wait(
            "document.querySelector('.answer')?.textContent === 'Head 0·1 most: 0.80; above 0.75 since step 400.'"
        )
        assert sum("/attention?run=short" in url for url in page.requests) == 1
        page.tab.locator("input[type=range]").fill("200")
        page.wait("document.querySelector('.answer').textContent === 'Head 0·1 most: 0.60; above 0.5 since step 200.'")
        assert sum("/attention?run=short" in url for url in page.requests) == 1  # kept
        page.tab.route("**/attention?**", lambda route: route.fulfill(status=422, json={"error": "No such luck."}))
        page.tab.locator(".question select").select_option("3")
        page.wait("document.querySelector('.fault').textContent === 'No such luck.'")
        assert page.tab.locator(".answer").text_content() == "Head 1·0 most: 0.40."  # of the shown step alone
        assert not page.errors


def test_words_are_asked_about_as_words(browser: Any, server: str, logs: Path) -> None:
    """Both of a word's tokens read, and the tokens of the word attended to add up, in a file as on a server."""
    answer = "Head 0·0 most: 0.60 to “animal”; above 0.5 at every step."
    with Page(browser, frame(server, "run=words&score=@pin&sort=1&token=3.")) as page:
        page.wait(f"document.querySelector('.answer')?.textContent === '{answer}'")
        asked = [url for url in page.requests if "/attention?" in url]
        assert len(asked) == 1 and "query=4-6" in asked[0] and "units=words" in asked[0]
        assert captions(page) == {"0": "0·0  0.60", "1": "0·1  0.40"}
        options = page.tab.locator(".question option").all_text_contents()
        assert options == ["its strongest word", "A", "animal", "did"]
        page.tab.locator(".question select").select_option("2")
        page.wait("document.querySelector('.answer').textContent.startsWith('Head 0·1 most: 0.40')")
        assert "query=4-6&key=3-4" in page.requests[-1]
        page.tab.locator("button", has_text=re.compile("^Tokens$")).click()  # the last token of each word
        page.wait("document.querySelector('.chart-title').textContent.includes('from “t” to “did”')")
        assert "query=5-6&key=3-4" in page.requests[-1]
        assert not page.errors
    contents = [snapshots.path(logs / "words", step).read_bytes() for step in (1, 2)]
    write_html(logs / "words.html", contents, title="words")
    with Page(browser, f"{(logs / 'words.html').as_uri()}#score=@pin&sort=1&token=3.") as page:
        assert page.tab.locator(".answer").text_content() == answer and captions(page)["1"] == "0·1  0.40"


def test_a_long_run_is_read_in_parts_and_a_long_text_by_its_rows(browser: Any, server: str, logs: Path) -> None:
    expected = {
        step: read_patterns(snapshots.path(logs / "long", step).read_bytes())[..., 80, 40] for step in TO_ANIMAL
    }
    held = []
    with Page(browser, frame(server, "run=long&view=map&score=@pin&sort=1&token=80.4")) as page:
        page.wait("document.querySelectorAll('.question .answer').length === 1")

        def parts(route: Any) -> None:
            after = int(re.search(r"after=(-?\d+)", route.request.url)[1])  # type: ignore[index]  # the viewer sends it
            step = min(one for one in TO_ANIMAL if one > after)
            held.append(step)
            values = [round(float(value), 6) for value in expected[step].ravel()]
            route.fulfill(json={"steps": [step], "values": [values], "isAll": step == 400})

        page.tab.locator(".question select").select_option("41")
        page.wait("document.querySelector('.chart-title').textContent.includes('to “w41” of')")
        real = captions(page)
        page.tab.route("**/attention?**", parts)
        page.tab.locator(".question select").select_option("40")
        page.wait("document.querySelector('.chart-title').textContent.includes('to “w40” of')")
        page.wait("!document.querySelector('.answer').textContent.includes('eading the steps')")
        assert held == [*TO_ANIMAL]
        best = max(range(4), key=lambda head: expected[400].ravel()[head])
        assert order(page)[0] == str(best) and real != captions(page) and not page.errors


def test_of_an_own_text_the_shown_step_alone_is_known(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=short&score=induction")) as page:
        page.wait(is_at(400))
        page.tab.route(
            "**/own_text", lambda route: route.fulfill(body=hand_made(200), content_type="application/octet-stream")
        )
        page.tab.locator(".own textarea").fill("The animal did not cross for it was")
        page.tab.locator(".own button").click()
        page.wait("document.querySelector('.note').textContent.startsWith('Your text through')")
        word(page, IT).click()
        page.wait("!document.querySelector('.question').hidden")
        page.tab.locator(".question select").select_option(str(ANIMAL))
        page.wait("document.querySelector('.answer').textContent.startsWith('Head 0·1 most: 0.60.')")
        assert "Your text is read at this step alone" in str(page.tab.locator(".answer").text_content())
        assert "of every head at this step alone" in str(page.tab.locator(".chart-title").text_content())
        assert not any("/attention?" in url for url in page.requests) and not page.errors
        page.tab.locator("select[aria-label=Text]").select_option("0")  # other words: the question ends
        page.wait("document.querySelector('.question').hidden")
        assert quote("@pin") not in page.tab.evaluate("location.hash")
