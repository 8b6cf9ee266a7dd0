"""The page of a walkthrough: one layer as blocks, all heads at once, in one file that asks for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.config import ModelConfig
from minitx.heads.blocks import Blocks, page_data
from minitx.heads.walkthrough import walk
from minitx.heads.walkthrough_page import steps_html
from minitx.model import Transformer
from minitx.tensorboard.plugin.blocks_page import blocks_page
from tests.tensorboard.browser import Page, chromium, needs_browser

TOKENS = [3, 1, 4, 15, 5, 9, 2, 6]
NASTY = "</script><img src=x onerror=\"document.title='hit'\">"
LABELS = {3: "The", 1: "␣animal", 4: "␣was", 15: "␣too", 5: "␣tired", 9: NASTY, 2: "␣to", 6: "␣go"}


def written(file: Path, head: int = 1, position: int = 5, **settings: object) -> dict[str, Any]:
    """Write the page of an untrained model to `file`; its data."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 4, "d_model": 32, "context_length": 128, **settings}
    model = Transformer(ModelConfig(**shape), 30).eval()  # type: ignore[arg-type]
    labels = [LABELS[token] for token in TOKENS]
    data = page_data(Blocks(model, TOKENS, 1), lambda token: LABELS.get(token, f"<{token}>"), head, position)
    steps = steps_html(walk(model, TOKENS, labels, 1, head, position))
    file.write_text(blocks_page(data, steps, title=f"run {NASTY}"), "utf-8")
    return data


def test_a_page_holds_keys_once_and_the_positions_near_the_chosen_one() -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=1, n_head=2, d_model=8, context_length=128), 30).eval()
    for position, first in ((127, 64), (0, 0), (60, 28)):
        data = page_data(Blocks(model, [i % 30 for i in range(128)], 0), str, 0, position)
        assert [answer["position"] for answer in data["answers"]] == list(range(first, first + 64))
    assert len(data["keys"]) == 2 and len(data["keys"][0]) == len(data["values"][1]) == 128
    assert "keys" not in data["answers"][0]["heads"][0]
    whole = Blocks(model, [i % 30 for i in range(128)], 0).at(40, str)["heads"][1]
    assert whole["keys"] == [data["keys"][1][key] for key in whole["read"]]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_every_step_is_on_one_screen_and_the_numbers_below(tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "blocks.html"
    data = written(file)
    with chromium() as browser, Page(browser, file.as_uri(), dark=dark) as shown:
        shown.wait("document.querySelector('.flow')")
        texts = shown.tab.locator(".flow text").all_text_contents()
        for expected in (
            *("x of", "query", "output", "side by side", "output projection", "rows 8 to 15 × 32"),
            *("head 0", "head 3", "keys", "weight", "values", "length", "= sum", "residual", "with sum"),
            *("likeliest next tokens", "before", "+ heads", "at the end", "animal", "tired"),
        ):
            assert any(text.startswith(expected) for text in texts), expected
        [answer] = [one for one in data["answers"] if one["position"] == 5]
        assert f"{answer['sum']['length']:.2f}" in texts
        assert shown.tab.locator(".flow .open").get_attribute("data-head") == "1"
        assert shown.tab.evaluate("document.documentElement.scrollHeight") <= 800 * 1.1
        assert shown.tab.evaluate(
            "document.querySelector('.blocks').scrollHeight <= document.querySelector('.blocks').clientHeight"
        )
        shown.tab.locator("summary").click()
        assert shown.tab.locator("details section").count() == 11
        assert shown.tab.get_by_text("sum of the heads' shares = Y").is_visible()
        assert shown.tab.title().startswith("run </script>") and not shown.errors
        assert [request.split(":")[0] for request in shown.requests] == ["file"]


@needs_browser
def test_a_head_opens_a_word_moves_the_position_and_pointing_tells_the_number(tmp_path: Path) -> None:
    file = tmp_path / "blocks.html"
    data = written(file, n_kv_head=2)
    with chromium() as browser, Page(browser, file.as_uri()) as shown:
        shown.wait("document.querySelector('.flow')")
        weights = shown.tab.locator(".flow .open .weight")
        assert weights.count() == 6
        shown.tab.locator("[data-head='3'] .lane").click(position={"x": 4, "y": 4})
        assert shown.tab.locator(".flow .open").get_attribute("data-head") == "3"
        shown.tab.locator(".text [data-token='2']").click()
        assert weights.count() == 3
        assert shown.tab.locator(".token.here").text_content() == " was"
        weights.nth(1).locator(":scope > rect").hover()
        [answer] = [one for one in data["answers"] if one["position"] == 2]
        told = shown.tab.locator(".tooltip div").all_text_contents()
        assert "animal" in told[0] and f"{answer['heads'][3]['pattern'][1]:.2f}" in told[1]
        shown.tab.locator(".flow .word[data-key='0']").click()
        assert weights.count() == 1 and weights.locator("text").first.text_content() == "1.00"
        shown.tab.locator("[data-head='0'] .lane").focus()
        shown.tab.keyboard.press("Enter")
        assert shown.tab.locator(".flow .open").get_attribute("data-head") == "0"
        assert shown.tab.evaluate("document.activeElement.getAttribute('aria-label')") == "head 0"
        assert not shown.errors


@needs_browser
@pytest.mark.parametrize(("n_head", "width", "scrolls"), [(4, 390, False), (8, 1280, False), (16, 390, True)])
def test_many_heads_and_a_narrow_screen_scroll_only_where_they_must(
    tmp_path: Path, n_head: int, width: int, scrolls: bool
) -> None:
    file = tmp_path / "blocks.html"
    written(file, n_head=n_head)
    with chromium() as browser, Page(browser, file.as_uri(), width=width, height=844) as shown:
        shown.wait("document.querySelector('.flow')")
        assert shown.tab.locator(".flow .lane").count() == n_head
        is_wide = shown.tab.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.blocks'))")
        assert is_wide is scrolls
        assert shown.tab.evaluate("document.documentElement.scrollWidth") <= width
        names = shown.tab.locator(".flow .guess text:first-of-type")
        assert all(box["x"] + box["width"] <= width for box in (one.bounding_box() for one in names.all()))
        assert not shown.errors
