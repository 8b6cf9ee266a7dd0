"""The view "What if" as people use it: a real run, a real `tensorboard` process with its worker, a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.heads.what_if import ranking, without
from minitx.interop.model_page import run_page
from minitx.run.folder import Run
from minitx.training.session import train
from tests.small import small_config
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_tab import frame, tensorboard

pytestmark = IN_BROWSER
VIEW = "run=small&view=what_if&step=4&units=tokens"
LOSSES = r"goes from ([\d.]+) to ([\d.]+) nats"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run of 2 × 2 heads whose weights are kept at steps 2, 4 … 12, its checkpoint at step 12 alone."""
    config = small_config(tmp_path_factory.mktemp("what_if"), sample_every=0, checkpoint_every=12, keep_checkpoints=1)
    assert train(replace(config, log=replace(config.log, snapshots_every=2))) == 0
    return Run(Path(config.out))


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[str]:
    with tensorboard(run.path.parent) as address:
        yield address


def asked(run: Run, step: int, question: Any, **fields: Any) -> Any:
    """What the model itself answers on the run's first text."""
    model, tokenizer = run.load_model(str(step), torch.device("cpu"))[0], run.tokenizer()
    return question(model, tokenizer, tokenizer.encode("the cat sat."), fields)


def mean(losses: list[float | None]) -> float:
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known)


def numbers(page: Page, selector: str) -> list[float]:
    texts = page.tab.locator(selector).all_text_contents()
    return [float(text.replace("−", "-").replace("±", "")) for text in texts]


def told_losses(page: Page) -> list[float]:
    match = re.search(LOSSES, page.tab.locator(".headline").text_content())
    assert match is not None
    return [float(figure) for figure in match.groups()]


def test_heads_are_switched_off_and_the_predictions_are_the_models(browser: Any, server: str, run: Run) -> None:
    with Page(browser, frame(server, VIEW)) as page:
        headline = page.tab.locator(".headline")
        headline.wait_for()
        assert "All heads are on" in headline.text_content() and "Weights of step 4." in headline.text_content()
        page.tab.locator("[data-switch='head 1']").click()
        page.wait("document.querySelector('.headline').textContent.includes('Without head 0·1')")
        answer = asked(run, 4, without, heads=[1], how="zero")
        expected = [mean(answer[side]["loss"]) for side in ("before", "after")]
        assert told_losses(page) == pytest.approx(expected, abs=0.006)
        page.tab.locator(".what_if [data-token='4']").click()
        page.wait("document.querySelector('.what_if .word.from').dataset.token === '4'")
        for number, side in enumerate(("before", "after")):
            values = page.tab.locator(f".list >> nth={number}").locator(".value").all_text_contents()
            told = [float(value.removeprefix("<")) for value in values]
            assert told == pytest.approx(answer[side]["probabilities"][4], abs=0.006)
        page.tab.locator("[data-switch='layer 1']").click()
        page.wait("document.querySelector('.headline').textContent.includes('heads 0·1, 1·0, 1·1')")
        page.tab.locator("[data-switch='mean']").click()
        page.wait("document.querySelector('.headline').textContent.includes('held at the mean')")
        answer = asked(run, 4, without, heads=[1, 2, 3], how="mean")
        assert told_losses(page)[1] == pytest.approx(mean(answer["after"]["loss"]), abs=0.006)
        assert page.tab.locator("[data-switch='mean']").evaluate("button => button === document.activeElement")
        address = page.tab.evaluate("location.href")
        assert all(part in address for part in ("off%3D1.2.3", "how%3Dmean", "token%3D4"))
        assert not page.errors


def test_the_ranking_is_in_the_units_of_the_losses_beside_it(browser: Any, server: str, run: Run) -> None:
    """In words it was of one token, beside the loss of the next word, which may change the other way."""
    places: list[tuple[list[int], int]] = [([4, 5], 1), ([6, 10], 1), ([2, 11], 3)]  # the cat sat. │ ␣sat │ ␣cat ␣sat .
    with Page(browser, frame(server, f"{VIEW}&rank=1&token=4.&off=0")) as page:
        for positions, units in places:
            page.tab.locator(".head small").first.wait_for()
            found = asked(run, 4, ranking, positions=positions, how="zero")
            changes = numbers(page, ".head small")
            assert changes == pytest.approx([(loss - found["loss"]) / units for loss in found["without"]], abs=0.002)
            beside = numbers(page, ".total .change")  # here and of the text, without head 0
            assert beside[int(units > 1)] == pytest.approx(changes[0], abs=0.002)
            if positions[0] == 4:
                page.tab.locator("button", has_text="Words").click()  # the pin moves to "cat", which ends at token 6
                page.tab.locator(".hint", has_text="after “cat”").wait_for()
            elif units == 1:
                page.tab.locator(".what_if .word", has_text="cat").click()  # unpins it
                page.tab.locator(".hint", has_text="in this text").wait_for()
        assert not page.errors


def test_a_text_of_one_token_has_no_ranking(browser: Any, server: str, run: Run, tmp_path: Path) -> None:
    """A page that runs its model showed NaN on every head."""
    file = tmp_path / "page.html"
    file.write_text(run_page(run, run.load_model("12", torch.device("cpu"))[0], 12), "utf-8")
    for address in (frame(server, VIEW), f"{file.as_uri()}#view=what_if"):
        with Page(browser, address) as page:
            page.tab.locator(".headline").wait_for()
            page.tab.locator("form.own textarea").fill("t")
            page.tab.locator("form.own button").click()
            page.tab.locator(".note", has_text="Your text").wait_for()
            page.tab.locator("[data-switch='rank']").click()
            page.tab.locator(".fault", has_text="The text has a single token, so nothing follows").wait_for()
            assert page.tab.locator(".head small").count() == 0 and not page.errors


def test_the_old_answer_stays_while_the_model_is_asked_and_where_it_fails(browser: Any, server: str) -> None:
    with Page(browser, frame(server, f"{VIEW}&off=0")) as page:
        headline = page.tab.locator(".headline")
        headline.wait_for()
        before = headline.text_content()
        held: list[Any] = []
        page.tab.route("**/ask", lambda route: held.append(route))
        page.tab.locator("[data-switch='head 3']").click()
        page.tab.locator(".waiting").wait_for()
        assert headline.text_content() == before
        assert page.tab.locator("[data-switch='head 3']").get_attribute("aria-pressed") == "true"
        held[0].fulfill(status=422, json={"error": "The model's process ended: try again."})
        page.tab.locator(".fault", has_text="The model's process ended: try again.").wait_for()
        assert headline.text_content() == before
        page.tab.unroute("**/ask")
        page.tab.locator("[data-switch='head 3']").click()
        page.wait("document.querySelector('.headline')?.textContent.includes('Without head 0·0,')")
        assert not page.errors


def test_a_visitor_who_may_not_run_the_model_is_told_so(browser: Any, server: str, tmp_path: Path) -> None:
    with Page(browser, frame(server, VIEW)) as page:
        page.tab.locator(".headline").wait_for()
        answer = {"runs": ["small"], "newest": "small", "own_text": "Own texts are run only at home.", "note": ""}
        page.tab.route("**/runs", lambda route: route.fulfill(body=json.dumps(answer)))
        page.tab.reload()
        page.tab.locator(".what_if .hint", has_text="only at home").wait_for()
        assert page.tab.locator(".what_if button").count() == 0
        page.tab.unroute("**/runs")
        response = page.tab.request.get(f"{server}/data/plugin/attention/page?run=small&probe=0&step=4")
        (tmp_path / "page.html").write_bytes(response.body())
        page.tab.goto(f"file://{tmp_path}/page.html#view=what_if")
        page.tab.locator(".what_if .hint", has_text="A file holds no weights").wait_for()
        assert page.tab.locator(".what_if button").count() == 0 and not page.errors
