"""What `record`, `show` and their like give, for every kind of attention, and what a browser makes of a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import minitx
from minitx.model import Block
from minitx.tensorboard.plugin.store import Store
from tests.heads.test_what_if import KINDS
from tests.library.test_loaded_run import run_of
from tests.tensorboard.browser import Page, chromium, needs_browser


@pytest.mark.parametrize("kind", [*KINDS, {"n_kv_head": 2, "kept_heads": [[0, 1, 3], [2, 3]]}, {"tricks": ["smear"]}])
def test_a_record_is_what_the_model_computes(kind: dict[str, Any]) -> None:
    run, text = run_of(**kind), "the cat sat"
    look, config = minitx.record(run, text), run.model.config
    outputs: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(run.model.blocks):
        if (attention := cast(Block, block).attention) is not None:
            attention.output.register_forward_pre_hook(lambda _, x, layer=layer: outputs.update({layer: x[0][0]}))
    with torch.no_grad():
        logits = run.model(torch.tensor([run.tokenizer.encode(text)]))[0]  # by the fused route
    assert len(look.tokens) == len(text) and not look.patterns.is_inference()
    torch.testing.assert_close(look.logits, logits, atol=1e-4, rtol=0)
    for layer in range(config.n_layer):
        kept = config.heads_in(layer)
        concatenated = look.head_outputs[layer, kept].transpose(0, 1).flatten(1)  # (seq, head * d_head)
        if kept:
            torch.testing.assert_close(concatenated, outputs[layer], atol=1e-4, rtol=0)
            mixed = look.patterns[layer, kept] @ look.values[layer, kept]
            torch.testing.assert_close(mixed, look.head_outputs[layer, kept], atol=1e-5, rtol=0)
        for head in {*range(4)} - {*kept}:
            assert look.patterns[layer, head].isnan().all() and look.head_outputs[layer, head].isnan().all()
    assert run.model.training  # it is left in the mode that it had


def test_scores_have_nan_for_pruned_heads_and_measuring_asks_for_a_whole_model() -> None:
    run = run_of(kept_heads=[[1, 2], [0, 1, 2, 3]])
    scored = minitx.score_heads(run, "the cat sat and the cat sat")
    for values in (scored.scores["induction"], scored.scores["importance"]):
        assert np.isnan(values).tolist() == [[True, False, False, True], [False] * 4]
    with pytest.raises(minitx.UserError, match="is a pruned run"):
        minitx.measure_heads(run, "the cat sat")


def test_snapshots_of_a_loop_of_ones_own_are_found_by_the_tab(run: minitx.LoadedRun, tmp_path: Path) -> None:
    for step in (10, 20):
        minitx.write_snapshot(run_of(), ["the cat", "rain"], tmp_path / "logs" / "mine", step)
    store = Store(str(tmp_path / "logs"))
    assert store.names() == ["mine"] and store.describe("mine")["steps"] == [10, 20]
    assert [probe["text"] for probe in store.describe("mine")["newest"]["probes"]] == ["the cat", "rain"]
    minitx.write_snapshot(run_of(), "the cat", tmp_path / "logs" / "one", 10)
    assert len(Store(str(tmp_path / "logs")).describe("one")["newest"]["probes"]) == 1
    with pytest.raises(minitx.UserError, match="runs/small is a trained run"):
        minitx.write_snapshot(run, ["the cat"], "runs/small")


@pytest.mark.parametrize(
    ("folder", "step", "sentence"),
    [("", 0, "'' is no folder"), ("a", 1.5, "step is 1.5"), ("a", -1, "step is -1"), ("a/file", 0, "is a file")],
)
def test_snapshots_need_a_folder_and_a_step(
    folder: str, step: Any, sentence: str, run: minitx.LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/file").touch()
    with pytest.raises(minitx.UserError, match=sentence):
        minitx.write_snapshot(run, "the cat", folder, step)
    minitx.write_snapshot(run, "the cat", "a", np.int64(3))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.rglob("*.heads")) == ["step-000003.heads"]


@pytest.mark.parametrize(
    "call", [minitx.record, minitx.show, lambda run, text: minitx.write_snapshot(run, [text], "a")]
)
@pytest.mark.parametrize(("text", "sentence"), [("", "has no tokens"), ("x" * 17, "17 tokens, but this model sees 16")])
def test_texts_that_do_not_fit(
    call: Any, text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(minitx.UserError, match=sentence):
        call(run_of(), text)
    assert not (tmp_path / "a").exists()


def test_a_page_is_saved_whole(run: minitx.LoadedRun, tmp_path: Path) -> None:
    page = minitx.show(run)  # the run's probes
    page.save(tmp_path / "heads.html")
    assert (tmp_path / "heads.html").read_text("utf-8") == page.html
    with pytest.raises(minitx.UserError, match=r"end its name with \.html"):
        page.save(tmp_path / "heads.png")


@needs_browser
@pytest.mark.parametrize(
    ("letters", "system", "theme"), [("#222", "light", "light"), ("#ddd", "light", "dark"), ("#222", "dark", "light")]
)
def test_a_notebooks_cell_shows_the_page(
    letters: str, system: str, theme: str, run: minitx.LoadedRun, tmp_path: Path
) -> None:
    text = 'a "cat" &quot; </script><i>sat'
    cell = minitx.show(run, text, view="view=scatter&head=3", height=500)._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><body style='color: {letters}'><p>before</p>{cell}<p>after</p>", "utf-8")
    with chromium() as browser, Page(browser, notebook.as_uri(), width=640, dark=system == "dark") as shown:
        frame = shown.tab.frames[1]
        frame.wait_for_function("document.body.dataset.step !== undefined")
        assert frame.locator("h2").text_content() == "Layer 1, head 1"
        assert frame.locator("select[aria-label='Text']").evaluate("all => all.selectedOptions[0].textContent") == text
        assert frame.evaluate("getComputedStyle(document.body).getPropertyValue('--kind').trim()") == theme
        assert shown.tab.locator("iframe").bounding_box()["height"] == 500
        other = {"light": "dark", "dark": "light"}[theme]
        shown.tab.evaluate(f"document.body.style.color = {'#ddd' if other == 'dark' else '#222'!r}")
        frame.locator(f"html[data-theme={other}]").wait_for(state="attached")
        frame.locator(".cell").first.click()
        frame.locator("button", has_text="Link").first.click()
        assert frame.locator(".link-text").input_value().startswith("run=small&")  # what `view` takes
        shown.tab.evaluate("addEventListener('wheel', (event) => (document.title += event.deltaY))")
        frame.locator("h2").hover()
        for wheel, place in ((7, "> 0"), (-7, "=== 0"), (-7, "=== 0")):  # the page scrolls down, up, and no further
            shown.tab.mouse.wheel(0, wheel)
            frame.wait_for_function(f"() => document.documentElement.scrollTop {place}")
        shown.tab.wait_for_function("document.title === '-7'")  # only the last is for the notebook
        assert not shown.errors and shown.requests == [notebook.as_uri()]
