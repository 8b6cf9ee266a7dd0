"""The view "Blocks" of the tab: a real `tensorboard`, its worker with a real checkpoint, a real browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import quote

import torch

from minitx.data.tokenizer import Tokenizer
from minitx.heads import snapshots
from minitx.heads.blocks import Blocks
from minitx.heads.view import probe_of, text_snapshot
from minitx.model import Transformer
from minitx.run import checkpoints
from minitx.run.folder import Run
from minitx.tensorboard.plugin.page import page
from minitx.tensorboard.writer import EventWriter
from tests.small import small_config, small_text
from tests.tensorboard.browser import Page, chromium, needs_browser
from tests.tensorboard.test_tab import tensorboard

TEXT = "the cat sat on a mat"


def written_run(folder: Path) -> tuple[Transformer, Tokenizer]:
    """A run of an untrained model with snapshots at steps 2 and 6 and weights at step 6 alone; layer 1 lost head 0."""
    plain = small_config(folder)
    shape = dataclasses.replace(plain.model, n_head=4, kept_heads=[[0, 1, 2, 3], [1, 2, 3]])
    config = dataclasses.replace(plain, model=shape)
    tokenizer = Tokenizer.train([small_text(20)], config.tokenizer)
    torch.manual_seed(0)
    model = Transformer(config.model, tokenizer.vocab_size).eval()
    run = Run.create(config.out, config, tokenizer, {})
    checkpoints.save(run.path, model, {}, {"step": 6}, best=True, keep=1)
    EventWriter(run.path).close()
    probe = probe_of(model, tokenizer, TEXT, tokenizer.encode(TEXT))
    for step in (2, 6):
        snapshots.write(run.path, step, snapshots.encode(step, [probe], run=snapshots.run_id(run.path) or ""))
    return model, tokenizer


@needs_browser
def test_the_view_shows_a_layer_of_the_kept_weights_and_follows_head_and_word(tmp_path: Path) -> None:
    model, tokenizer = written_run(tmp_path)
    tokens = tokenizer.encode(TEXT)
    with tensorboard(tmp_path / "runs") as address, chromium() as browser:
        view = quote("view=blocks&head=2&token=6.&units=tokens")
        link = f"{address}/data/plugin_entry.html?name=attention#attention&p.attention.view={view}"
        with Page(browser, address=link) as shown:
            shown.wait("document.querySelector('.flow .open')")
            shown.tab.get_by_role("button", name="Blocks").wait_for()

            def texts() -> list[str]:
                return shown.tab.locator(".flow text").all_text_contents()

            assert shown.tab.locator(".flow .lane").count() == 4
            assert shown.tab.locator(".flow .open").get_attribute("data-head") == "2"
            expected = Blocks(model, tokens, 0).at(6, tokenizer.token_text)
            assert f"{expected['sum']['length']:.2f}" in texts()
            assert shown.tab.locator(".flow .open .weight").count() == 7
            shown.tab.locator(".text [data-token='3']").click()
            shown.wait("document.querySelectorAll('.flow .open .weight').length === 4")
            shown.tab.locator(".flow [data-head='1'] .lane").click(position={"x": 4, "y": 4})
            shown.wait("document.querySelector('.flow .open')?.dataset.head === '1'")
            shown.tab.locator(".cell[data-head='7']").click()  # layer 1, head 3; pruning took its head 0
            shown.wait("document.querySelectorAll('.flow .lane').length === 3")
            assert shown.tab.locator(".flow .open").get_attribute("data-head") == "3"
            expected = Blocks(model, tokens, 1).at(3, tokenizer.token_text)
            assert f"{expected['sum']['length']:.2f}" in texts()
            assert "head 0" not in texts() and "nearest" not in shown.tab.locator(".blocks .hint").text_content()
            assert not shown.tab.get_by_role("button", name="Words", exact=True).count()
            shown.tab.locator("input[type=range]").focus()
            shown.tab.keyboard.press("ArrowLeft")
            shown.wait("document.querySelector('.blocks .hint')?.textContent.includes('step 6, the nearest to 2')")
            assert not shown.errors


@needs_browser
def test_a_page_without_a_model_says_where_the_blocks_are(tmp_path: Path) -> None:
    model, tokenizer = written_run(tmp_path)
    content = text_snapshot(model, tokenizer, [(TEXT, tokenizer.encode(TEXT))], 6)
    file = tmp_path / "heads.html"
    file.write_text(page([content], title="run", view="view=blocks"), "utf-8")
    with chromium() as browser, Page(browser, file.as_uri()) as shown:
        shown.wait("document.querySelector('.blocks .fault')")
        assert "minitx walkthrough RUN --html" in shown.tab.locator(".blocks .fault").text_content()
        assert not shown.errors
