"""The tab in words: patterns, links, predictions and scores of the shown text, in a real browser."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from typing import Any

import numpy as np

from minitx.commands.shared import write_page
from minitx.heads.packing import encode_weights, pack
from minitx.heads.snapshots import PlacedLink, ShownProbe, encode
from minitx.tensorboard.plugin.page import STATIC, page
from tests.heads.test_snapshots import patterns
from tests.tensorboard.browser import IN_BROWSER, Page

pytestmark = IN_BROWSER

TOKENS = ["The", "␣c", "at", "␣", "s", "at", "·", "·", "日", "."]
WORDS = [0, 1, 3, 6, 9]
LABELS = ["The", "␣cat", "␣sat", "日", "."]
LINK = PlacedLink("sat → cat", range(4, 6), range(1, 3))
PREDICTIONS = {
    "tokens": [[f"n{position}.{rank}" for rank in range(5)] for position in range(9)] + [["␣end", "b", "c", "d", "e"]],
    "probabilities": [[0.5, 0.25, 0.125, 0.0625, 0.0001]] * 10,
    "real": [1, None, 0, None, None, 4, None, None, 0, None],
    "loss": [0.25, 1, 0.5, 2, 3, 0.75, 0.125, 0.125, 0.5, None],
}


def in_words(pattern: Any) -> Any:
    """(word, word): the mean over the rows of a word's tokens of the sum over the columns of a word's, in float64."""
    spans = list(zip(WORDS, [*WORDS[1:], len(TOKENS)], strict=True))
    words = np.zeros((len(spans), len(spans)))
    for i, (start, end) in enumerate(spans):
        for j, (first, last) in enumerate(spans):
            words[i, j] = np.mean([sum(float(pattern[q, k]) for k in range(first, last)) for q in range(start, end)])
    return words


def shown(**more: Any) -> ShownProbe:
    return ShownProbe("The cat sat日.", TOKENS, patterns(1, 2, len(TOKENS)), [LINK], words=WORDS, **more)


def opened(browser: Any, folder: Path, content: bytes, link: str = "", **more: Any) -> Page:
    file = folder / "heads.html"
    write_page(str(file), page([content], title="run"))
    shown = Page(browser, f"{file.as_uri()}#{link}", **more)
    shown.wait("document.body.dataset.step === '1'")
    return shown


def test_a_pattern_in_words_equals_a_loop(browser: Any) -> None:
    """And it is causal, and its rows still add up to 1."""
    pattern = patterns(1, 1, len(TOKENS))[0, 0]
    levels = encode_weights(pattern)
    expected = in_words((levels / 255.0) ** 2)
    assert not np.triu(expected, 1).any() and np.allclose(in_words(pattern).sum(axis=1), 1)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(STATIC))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]  # quiet
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Page(browser, f"http://localhost:{server.server_port}/style.css") as tab:
            spans = [list(span) for span in zip(WORDS, [*WORDS[1:], len(TOKENS)], strict=True)]
            packed = tab.tab.evaluate(
                """async ([levels, spans]) => {
                  const { packWords } = await import("/data/words.js");
                  return [...packWords(Uint8Array.from(levels), spans)];
                }""",
                [pack(levels).tolist(), spans],
            )
        server.shutdown()
    np.testing.assert_allclose((np.array(packed) / 255) ** 2, expected[np.tril_indices(5)], atol=0.004)


def test_words_are_shown_first_and_tokens_at_a_click(browser: Any, tmp_path: Path) -> None:
    probe = shown()
    expected = in_words(probe.patterns[0, 1])
    with opened(browser, tmp_path, encode(1, [probe]), "view=map&head=1") as tab:
        canvas = tab.tab.locator(".stage canvas").first
        canvas.hover()
        box = tab.tab.locator(".stage-box").first
        box.focus()
        for key in ("ArrowDown", "ArrowUp", "ArrowUp", "ArrowRight"):  # to the last word, two up, one to the right
            tab.tab.keyboard.press(key)
        spoken = tab.tab.locator(".spoken").text_content()
        assert spoken.startswith(f"sat → cat; {expected[2, 1]:.2f}"[:14]) and "mean over its tokens" in spoken
        assert spoken.endswith("sat → cat"), "the link is between the words"
        tab.tab.keyboard.press("Enter")
        tab.wait("location.hash.includes('token=2.1')")
        assert tab.tab.eval_on_selector(".cell canvas", "canvas => canvas.width") == 5
        tab.tab.get_by_role("button", name="Tokens").click()
        tab.wait("document.querySelector('.cell canvas').width === 10")
        tab.wait("location.hash.includes('token=5.2')")  # the last tokens of the two words
        box.focus()
        tab.tab.keyboard.press("Escape")
        tab.tab.keyboard.press("ArrowDown")
        spoken = tab.tab.locator(".spoken").text_content()
        assert spoken.startswith(". →") and "mean over" not in spoken
        assert not tab.errors


def test_whole_words_need_no_switch(browser: Any, tmp_path: Path) -> None:
    whole = ShownProbe("a b", ["a", "␣b"], patterns(1, 1, 2), words=[0, 1])
    with opened(browser, tmp_path, encode(1, [whole])) as tab:
        assert not tab.tab.get_by_role("button", name="Tokens").is_visible()
    older = ShownProbe("a b", ["a", "␣b"], patterns(1, 1, 2))
    with opened(browser, tmp_path, encode(1, [older]), "view=predictions") as tab:
        assert not tab.tab.get_by_role("button", name="Tokens").is_visible()
        assert "older version" in tab.tab.locator(".view").text_content()


def test_predictions_have_a_row_for_each_word_with_the_real_one_marked(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, encode(1, [shown(predictions=PREDICTIONS)]), "view=predictions") as tab:
        rows = tab.tab.locator(".position")
        assert rows.locator("th").all_text_contents() == LABELS
        losses = rows.locator(".loss").all_text_contents()
        assert losses == ["1.25", "5.50", "1.00", "0.50"]  # 0.25 + 1; 0.5 + 2 + 3; 0.75 + 0.125 + 0.125; 0.5
        assert "2.06 nats" in tab.tab.locator(".view .hint").text_content()
        likely = rows.nth(1).locator(".likely")
        assert likely.locator(".unit").all_text_contents() == [f"n2.{rank}" for rank in range(5)]
        assert likely.locator(".share").all_text_contents() == ["✓ 0.50", "0.25", "0.13", "0.06", "<0.001"]
        assert tab.tab.locator(".likely.real").count() == 4  # at the last tokens 0, 2, 5 and 8 of a word
        rows.nth(2).hover()
        assert tab.tab.locator(".position.from th").text_content() == "␣sat"
        tab.tab.get_by_role("button", name="Tokens").click()
        tab.wait("document.querySelectorAll('.position').length === 10")
        assert rows.locator(".loss").first.text_content() == "0.25" and tab.tab.locator(".likely.real").count() == 4
        assert not tab.errors


def test_predictions_change_with_the_step(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "steps.html"
    later = {**PREDICTIONS, "tokens": [["␣later"] * 5] * 10}
    contents = [encode(step, [shown(predictions=found)]) for step, found in ((1, PREDICTIONS), (2, later))]
    write_page(str(file), page(contents, title="run", steps_of=24))
    with Page(browser, f"{file.as_uri()}#view=predictions") as tab:
        tab.wait("document.body.dataset.step === '2'")
        assert tab.tab.locator(".likely").first.text_content().startswith("␣later")
        assert tab.tab.title() == "Attention · run · 2 of 24 steps"
        assert tab.tab.locator(".live").text_content() == "this file holds 2 of 24 steps"
        tab.tab.locator("input[type=range]").fill("1")
        tab.wait("document.body.dataset.step === '1'")
        assert tab.tab.locator(".likely").first.text_content().startswith("n0.0")


def test_captions_say_what_a_score_was_measured_on(browser: Any, tmp_path: Path) -> None:
    """Captions came from validation text under a probe and from the text itself under an own one, with one name."""
    own = {"scores": {"induction": np.array([[0.75, 0.25]])}, "roles": [["induction", "unclassified"]]}
    scores = {"induction": np.array([[0.1, 0.2]]), "importance": np.array([[0.3, 0.4]])}
    content = encode(1, [shown(**own)], scores, roles=[["unclassified"] * 2], scored_on="validation text")
    with opened(browser, tmp_path, content, "score=induction&head=0") as tab:
        captions, facts = tab.tab.locator(".cell .caption"), tab.tab.locator(".facts .fact")
        chosen = tab.tab.locator("select[aria-label='Text that heads are scored on']")
        assert captions.all_text_contents() == ["0.10", "0.20"]
        assert chosen.locator("option").all_text_contents() == ["validation", "this text"]
        assert chosen.get_attribute("title") == "Heads are scored on validation text"
        assert "all scores on validation text" in facts.all_text_contents()
        chosen.select_option("text")
        tab.wait("document.querySelector('.cell .caption').textContent === '0.75'")
        assert {"role: induction", "all scores on this text"} <= set(facts.all_text_contents())
        offered = tab.tab.locator("select[aria-label='Score of heads'] option, select[title*='attention to'] option")
        assert "importance" not in offered.all_text_contents(), "it is measured on validation text alone"
        assert not tab.errors
    yours = encode(1, [shown(**own)], {"induction": np.array([[0.1, 0.2]])}, scored_on="your text")
    with opened(browser, tmp_path, yours, "score=induction&head=0") as tab:
        assert not tab.tab.locator("select[aria-label='Text that heads are scored on']").is_visible()
        assert "all scores on your text" in tab.tab.locator(".facts .fact").all_text_contents()


def test_a_text_that_was_cut_says_so(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, encode(1, [shown(dropped=7)])) as tab:
        note = tab.tab.locator(".note[role=status]").text_content()
        assert note == "The text is cut: its last 7 tokens are left out, for the model sees 10 at once."


def test_words_of_a_long_text(browser: Any, tmp_path: Path) -> None:
    """Above 64 tokens: whole patterns are in words, and the survey keeps its blocks of tokens."""
    seq = 140
    probe = ShownProbe("long", ["␣a", "b"] * 70, patterns(1, 2, seq), words=range(0, seq, 2))
    with opened(browser, tmp_path, encode(1, [probe]), "view=map&head=1") as tab:
        assert tab.tab.eval_on_selector(".cell canvas", "canvas => canvas.width") == 47
        tab.tab.locator(".stage-box").first.focus()
        tab.tab.keyboard.press("ArrowDown")
        assert tab.tab.locator(".spoken").text_content().startswith("ab → ab")
        assert not tab.errors
