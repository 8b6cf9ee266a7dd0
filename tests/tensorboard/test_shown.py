"""Where a run lacks what a link or a click asks for, the tab shows something else, and says and links to that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest

from minitx.heads import snapshots
from minitx.heads.snapshots import ShownProbe, encode
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_opening import uniform, write_run
from tests.tensorboard.test_tab import frame, is_at, tensorboard

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs of one text, and by name before them two of another text, the first of one step and with a head removed."""
    folder = tmp_path_factory.mktemp("shown")
    weights = np.stack([uniform(2, 4)] * 2)
    weights[1, 0] = np.nan
    for run, steps in (("a-pruned", [5]), ("b-other", [5, 15])):
        (folder / run).mkdir()
        for step in steps:
            snapshots.write(folder / run, step, encode(step, [ShownProbe(run, list("abcd"), weights)]))
    write_run(folder / "same", 1, {10: 0.1, 20: 0.15})
    write_run(folder / "two", 2, {10: 0.12, 40: 0.9})
    with tensorboard(folder) as address:
        yield address


def link_of(shown: Page) -> dict[str, list[str]]:
    """The values in the address bar."""
    return parse_qs(unquote(shown.tab.evaluate("location.hash").partition("view=")[2]))


@pytest.mark.parametrize(("run", "other", "step"), [("two", "same", ""), ("b-other", "b-other", "5")])
def test_compare_opens_on_a_run_that_has_this_text_or_on_the_first_step(
    browser: Any, server: str, run: str, other: str, step: str
) -> None:
    """It took the first other run by name, which had other texts, and failed."""
    with Page(browser, frame(server, f"run={run}&view=map")) as shown:
        shown.tab.locator(".stage").first.wait_for()
        shown.tab.locator("button", has_text="Compare").click()
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        assert shown.tab.locator("select[aria-label='Run to compare with']").input_value() == other
        assert shown.tab.locator("select[aria-label='Step to compare with']").input_value() == step
        assert shown.tab.locator(".fault:visible").count() == 0 and not shown.errors


def test_the_tour_leaves_out_what_a_run_of_one_step_lacks(browser: Any, server: str) -> None:
    """Its last step pointed at the slider, which was hidden."""
    with Page(browser, frame(server, "run=a-pruned")) as shown:
        shown.wait(is_at(5))
        shown.tab.get_by_label("Help").click()
        shown.tab.locator("button", has_text="Show the tour").click()
        for text in ("1 of 2", "2 of 2"):
            shown.tab.locator(".tour", has_text=text).wait_for()
            shown.tab.locator(".tour button").last.click()
        shown.tab.locator(".tour").wait_for(state="detached")
        assert not shown.errors


def test_the_address_names_what_is_shown(browser: Any, server: str) -> None:
    wrong = "run=two&view=zzz&step=999999&probe=77&score=zzz&head=-5"
    with Page(browser, frame(server, wrong)) as shown:
        shown.wait(is_at(40))
        assert shown.tab.locator(".line").count() == 2, "a negative head opened an empty sentence"
        expected = {"run": ["two"], "probe": ["1"], "score": ["induction"], "head": ["3"], "shown": ["2.3"]}
        assert link_of(shown) == expected  # the view and the step are those of the start
        shown.tab.locator("button[title^='Copy a link']").click()
        address = shown.tab.locator(".link-text").input_value()
        assert shown.tab.evaluate("location.hash") == address[address.index("#") :]
        assert not shown.errors
    with Page(browser, frame(server, "run=two&step=13")) as shown:
        shown.wait(is_at(10))
        assert link_of(shown)["step"] == ["10"]


def test_the_list_names_the_head_that_a_link_is_limited_to(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two&view=map&compare=1&other_head=9999")) as shown:
        shown.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        assert shown.tab.locator("select[aria-label='Head to compare with']").input_value() == "3"


def test_a_removed_head_is_named_so_and_not_offered(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=a-pruned&head=3")) as shown:
        shown.wait(is_at(5))
        assert shown.tab.locator(".cell .caption").all_text_contents() == ["", "", "removed", ""]
        chips = shown.tab.locator(".chip")
        assert [chips.nth(place).is_disabled() for place in range(2)] == [True, False]
        removed = shown.tab.locator(".cell.removed")
        removed.hover()
        assert "removed from the model" in shown.tab.locator(".tooltip").text_content()
        removed.click()
        shown.tab.locator("h2", has_text="Layer 1, head 0").wait_for()
        assert shown.tab.locator(".facts").text_content() == "This head was removed from the model."
        assert shown.tab.locator(".sentence > .hint").text_content() == ""
        assert not shown.errors


def test_a_text_of_spaces_alone_is_answered_by_a_sentence(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=two")) as shown:
        shown.wait(is_at(40))
        shown.tab.get_by_label("Your own text").fill("   ")
        shown.tab.locator("button", has_text="Read").click()
        shown.tab.locator(".fault", has_text="The text is empty: type a sentence.").wait_for()
        shown.tab.locator(".cell").first.click()
        shown.tab.locator(".fault").wait_for(state="hidden")
        assert not shown.errors
