"""The view of what a head writes, in a real browser and TensorBoard, against the same figures from the weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from minitx.heads import snapshots
from minitx.heads.writes import writes
from minitx.run.folder import Run
from minitx.tensorboard.plugin.page import page as file_of
from tests.small import small_config
from tests.tensorboard.browser import IN_BROWSER, Page
from tests.tensorboard.test_tab import ROOT, frame, tensorboard

pytestmark = IN_BROWSER
HEADLINE, ROW = ".writes .headline", ".writes .row"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run of 2 × 2 heads."""
    folder = tmp_path_factory.mktemp("writes")
    config = small_config(folder, sample_every=0).to_dict()
    (folder / "small.yaml").write_text(yaml.safe_dump({**config, "out": "runs/small"}))
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, str(ROOT / "train.py"), "--config", "small.yaml"]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    return folder / "runs"


def answer(logs: Path, head: int, position: int) -> dict[str, Any]:
    """What the view must show for the first probe."""
    run = Run.find(str(logs / "small"))
    model, _ = run.load_model("12", torch.device("cpu"))
    tokenizer = run.tokenizer()
    return writes(model, tokenizer, tokenizer.encode("the cat sat."), {"head": head, "position": position})


def shown(page: Page) -> list[list[str]]:
    """Token and value of every row."""
    script = "rows => rows.map(row => [...row.querySelectorAll('.token, .value')].map(part => part.textContent))"
    return list(page.tab.eval_on_selector_all(ROW, script))


def test_the_lists_and_the_bars_are_those_of_the_weights(browser: Any, server: str, logs: Path) -> None:
    with Page(browser, frame(server, "run=small&view=writes&head=3&token=5.&units=tokens")) as page:
        expected = answer(logs, 3, 5)
        rows = [*expected["up"], expected["real"], *expected["down"]]
        page.wait(f"document.querySelectorAll('{ROW}').length === {len(rows)}")
        found = shown(page)
        assert [token for token, _ in found] == [entry["token"] for entry in rows]
        values = [float(value.replace("−", "-")) for _, value in found]
        assert values == pytest.approx([entry["value"] for entry in rows], rel=0.06, abs=1e-4)
        assert f"{expected['copying']:.2f}" in page.tab.inner_text(".writes .about")
        assert page.tab.locator(".writes .read").count() == 3
        row = page.tab.locator(ROW).last
        row.focus()  # the bars are now those of this token, and the row keeps its focus
        sources = expected["down"][-1]["sources"]
        largest = max(range(6), key=lambda at: abs(sources[at]))
        size = f".source[data-token='{largest}']"
        assert page.tab.eval_on_selector(size, "word => word.style.getPropertyValue('--size')") == "1.000"
        assert page.tab.locator(f"{size} small").count() == 1
        assert row.evaluate("row => row === document.activeElement && row.getAttribute('aria-pressed')") == "true"
        assert page.tab.locator(".writes .source.later").count() == len("the cat sat.") - 6
        assert not page.errors


def test_in_words_the_tokens_of_a_word_are_added_up(browser: Any, server: str, logs: Path) -> None:
    """The headline named a word with the attention to one of its letters."""
    with Page(browser, frame(server, "run=small&view=writes&head=3&token=1.")) as page:
        page.wait(f"document.querySelector('{HEADLINE}')?.textContent.startsWith('At “cat”')")
        words = page.tab.locator(".source")
        assert words.all_inner_texts()[2:] == ["sat", "."] and page.tab.locator(".source.later").count() == 2
        expected = answer(logs, 3, 6)  # of "the cat sat." by letters: "the" ends before 3, " cat" before 7
        spans = (slice(3), slice(3, 7))
        weights = [sum(source["weight"] for source in expected["sources"][span]) for span in spans]
        script = "words => words.slice(0, 2).map(word => parseFloat(word.style.getPropertyValue('--weight')))"
        shades = page.tab.eval_on_selector_all(".source", script)
        assert shades == pytest.approx([100 * weight for weight in weights], abs=0.06)
        values = [sum(source["value"] for source in expected["sources"][span]) for span in spans]
        best = values.index(max(values))
        told = ("“the”", "that word itself")[best]
        assert f"takes {told} (attention {weights[best]:.2f})" in page.tab.inner_text(HEADLINE)
        words.first.click()
        page.wait(f"document.querySelector('{HEADLINE}').textContent.startsWith('At “the”')")
        assert not page.errors


def test_the_pieces_of_a_word_stay_on_one_line(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=small&view=writes&head=3&units=tokens"), width=390) as page:
        page.wait(f"document.querySelector('{HEADLINE}')")
        page.tab.add_style_tag(content=".writes .text { width: 1px; }")
        bottoms = "[...document.querySelectorAll('.source')].map(at => Math.round(at.getBoundingClientRect().bottom))"
        page.wait(f"{bottoms}.map((bottom, _, all) => all.indexOf(bottom)).join() === '0,0,0,3,3,3,3,7,7,7,7,11'")


def test_a_word_is_pinned_by_a_click_and_a_head_that_is_read_is_opened(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=small&view=writes&head=2&units=tokens")) as page:
        page.wait(f"document.querySelector('{HEADLINE}')?.textContent.startsWith('At “.”')")  # no pin: the last token
        assert page.tab.locator(".writes .real").count() == 0  # nothing comes next
        page.tab.locator(".source[data-token='4']").click()
        page.wait(f"document.querySelector('{HEADLINE}').textContent.startsWith('At “c”')")
        assert page.tab.locator(".source.from").get_attribute("data-token") == "4"
        partner = page.tab.locator(".writes .read").first
        place = partner.inner_text().split("from ")[1][:3]
        partner.click()
        page.wait(f"document.querySelector('h2').textContent === 'Layer {place[0]}, head {place[2]}'")
        page.wait("document.querySelector('.writes .about').textContent.includes('no head comes before it')")
        assert not page.errors


def test_a_refusal_and_a_file_say_why_in_a_sentence(browser: Any, logs: Path, tmp_path: Path) -> None:
    with (
        tensorboard(logs, "--host", "0.0.0.0") as address,
        Page(browser, frame(address, "run=small&view=writes")) as page,
    ):
        page.wait("document.querySelector('.writes')?.textContent.startsWith('Own texts are run only')")
        assert not page.errors
    content = snapshots.path(logs / "small", 12).read_bytes()
    (tmp_path / "file.html").write_text(file_of([content], title="small", view="view=writes"), "utf-8")
    with Page(browser, (tmp_path / "file.html").as_uri()) as page:
        page.wait("document.querySelector('.writes')?.textContent.startsWith('A file holds no weights')")
        assert not page.errors


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_nothing_runs_out_of_the_window(browser: Any, server: str, width: int, dark: bool) -> None:
    with Page(browser, frame(server, "run=small&view=writes&head=3"), width=width, dark=dark) as page:
        page.wait(f"document.querySelector('{HEADLINE}')")
        assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        view = page.tab.eval_on_selector(".view", "view => [view.scrollWidth, view.clientWidth]")
        assert view[0] <= view[1]
