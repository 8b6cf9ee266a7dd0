"""The Attention tab as people use it: a real run, a real `tensorboard` process, a real browser."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import yaml

from minitx.heads import snapshots
from tests.heads.test_snapshots import changed, header_of, patterns, read_patterns
from tests.small import small_config
from tests.tensorboard.browser import IN_BROWSER, SLOW, Page

ROOT = Path(__file__).parents[2]
pytestmark = IN_BROWSER
DIFFERENCE = "Difference: the second minus the first"


@contextmanager
def tensorboard(logs: Path, *arguments: str) -> Iterator[str]:
    """TensorBoard started as a person would, on a free port; its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=logs)
    address = f"http://localhost:{port}"
    if "--path_prefix" in arguments:
        address += arguments[arguments.index("--path_prefix") + 1]
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/data/environment").close()
                break
            except OSError:
                assert process.poll() is None, "TensorBoard has ended"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two trained runs: small, of 2 × 2 heads, and single, of one head in each layer."""
    folder = tmp_path_factory.mktemp("tab")
    config = small_config(folder, sample_every=0).to_dict()
    config["log"] |= {"snapshots_every": 2, "keep_weights": 0}
    training = []
    for name, heads in (("small", 2), ("single", 1)):
        config["model"]["n_head"] = heads
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**config, "out": f"runs/{name}"}))
        command = [sys.executable, str(ROOT / "train.py"), "--config", f"{name}.yaml"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / name)}
        training.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in training] == [0, 0]
    return folder / "runs"


def frame(server: str, link: str = "run=small") -> str:
    """Address of the tab's frame alone, which opens much faster than TensorBoard around it."""
    return f"{server}/data/plugin_entry.html?name=attention#attention&p.attention.view={quote(link)}"


def recorded(logs: Path, run: str, step: int, probe: int = 0) -> Any:
    """The patterns (layer, head, query, key) that the run recorded."""
    return read_patterns(snapshots.path(logs / run, step).read_bytes(), probe)


def pixels(page: Page, selector: str) -> str:
    """What a canvas shows, as a data address."""
    return str(page.tab.eval_on_selector(selector, "canvas => canvas.toDataURL()"))


def is_at(step: int) -> str:
    return f"document.body.dataset.step === '{step}'"


def test_the_tab_appears_in_tensorboard_and_follows_its_dark_mode(browser: Any, server: str) -> None:
    link = quote("run=small&view=arcs&step=4&head=3")
    with Page(browser, f"{server}/#attention&p.attention.view={link}") as page:
        page.tab.locator("text=Attention").first.wait_for()
        inside = page.tab.frame_locator("iframe").first
        inside.locator(".cell").first.wait_for()
        assert inside.locator("h2").text_content() == "Layer 1, head 1"
        assert inside.locator(".step").text_content() == "step 4"
        assert inside.locator("button[aria-pressed=true]", has_text="Arcs").count() == 1
        before = inside.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        page.tab.evaluate("document.body.classList.toggle('dark-mode')")
        body = inside.locator(":root[data-theme=dark] body")
        body.wait_for()
        assert body.evaluate("body => getComputedStyle(body).backgroundColor") != before
        inside.locator("button[title^='Copy a link']").click()
        address = inside.locator(".link-text").input_value()
        assert address.startswith(f"{server}/#attention&p.attention.view=")
        assert "step%3D4" in address and "head%3D3" in address
        assert not page.errors
        assert all(url.startswith((server, "data:", "blob:")) for url in page.requests if "attention" in url)


def test_a_notebook_shows_the_tab_and_its_link_is_copied(browser: Any, server: str, tmp_path: Path) -> None:
    """A notebook's page comes from another port: the browser keeps the frames in it from `navigator.clipboard`."""
    address = f"{server}/#attention&amp;p.attention.view={quote('run=small&head=3')}"
    (tmp_path / "notebook.html").write_text(f"<input><iframe width='948' height='800' src='{address}'></iframe>")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as jupyter:
        threading.Thread(target=jupyter.serve_forever, daemon=True).start()
        with Page(browser, f"http://localhost:{jupyter.server_port}/notebook.html") as page:
            inside = page.tab.frame_locator("iframe").frame_locator("iframe")
            inside.locator(".cell[data-head='2']").click()
            page.tab.keyboard.press("ArrowUp")
            inside.locator("h2", has_text="Layer 0, head 0").wait_for()
            inside.locator("button[title^='Copy a link']").click()
            page.tab.locator("input").click()
            page.tab.keyboard.press("Control+V")
            assert page.tab.locator("input").input_value() == (
                f"{server}/#attention&p.attention.view=run%3Dsmall%26score%3Dinduction%26head%3D0%26shown%3D0"
            )
            assert not page.errors
        jupyter.shutdown()


def test_the_slider_changes_the_picture_and_keys_move(browser: Any, server: str) -> None:
    with Page(browser, frame(server, "run=small&view=map")) as page:
        page.wait(is_at(12))
        assert page.tab.locator(".live").text_content() == "● newest"
        last = pixels(page, ".stage canvas")
        page.tab.locator("input[type=range]").fill("2")
        page.wait(is_at(2))
        assert pixels(page, ".stage canvas") != last
        page.tab.locator("input[type=range]").press("ArrowRight")
        page.wait(is_at(4))
        page.tab.locator(".cell[data-head='0']").focus()
        page.tab.keyboard.press("ArrowDown")
        page.tab.keyboard.press("ArrowRight")
        page.wait("document.querySelector('h2').textContent === 'Layer 1, head 1'")
        assert page.tab.evaluate("document.activeElement.dataset.head") == "3"
        page.tab.keyboard.press(",")
        page.wait(is_at(2))
        page.tab.locator("button[aria-label=Play]").click()
        page.wait(is_at(12))
        box = page.tab.locator(".chart").bounding_box()
        page.tab.mouse.click(box["x"] + 41, box["y"] + 30)
        page.wait(is_at(2))
        assert not page.errors


def test_hovering_shows_the_recorded_weight_and_the_heads_scores(browser: Any, server: str, logs: Path) -> None:
    patterns = recorded(logs, "small", 12)
    with Page(browser, frame(server, "run=small&view=map&head=3&units=tokens")) as page:
        page.wait(is_at(12))
        stage = page.tab.locator(".stage-box").first
        stage.focus()
        stage.press("ArrowUp")  # begins at the last query and the first key
        stage.press("ArrowUp")
        spoken = page.tab.locator(".spoken").text_content()
        seq = patterns.shape[-1]
        query, key = seq - 2, 0
        assert f"token {query} to token {key}" in spoken
        value = spoken.split("; ")[1]
        assert float(value) == pytest.approx(patterns[1, 1, query, key], abs=0.006)
        weights = {}
        box = stage.bounding_box()
        for share in (0.35, 0.45, 0.55):  # the tooltip gives the weight of the tokens that it names
            page.tab.mouse.move(box["x"] + box["width"] * 0.5 * (share + 0.35), box["y"] + box["height"] * 0.75)
            lines = page.tab.locator(".tooltip div").all_text_contents()
            if len(lines) == 3:
                words = lines[2].split()
                weights[(int(words[1]), int(words[4]))] = float(lines[1])
        assert weights
        for (query, key), value in weights.items():
            assert value == pytest.approx(patterns[1, 1, query, key], abs=0.006)
        page.tab.locator(".cell[data-head='2']").hover()
        lines = page.tab.locator(".tooltip div").all_text_contents()
        assert lines[0] == "layer 1, head 0"
        with snapshots.path(logs / "small", 12).open("rb") as file:
            header = snapshots.read_header(file)
        assert float(next(line for line in lines if line.startswith("entropy")).split()[-1]) == pytest.approx(
            header["scores"]["entropy"][2], abs=0.006
        )


def test_heads_are_laid_over_each_other_and_a_token_shows_its_own(browser: Any, server: str, logs: Path) -> None:
    patterns = recorded(logs, "small", 12)
    with Page(browser, frame(server, "run=small&view=columns&head=2&units=tokens")) as page:
        page.wait(is_at(12))
        one = pixels(page, ".stage canvas")
        page.tab.locator(".chip", has_text="1·1").click()
        page.wait("document.querySelectorAll('.chip[aria-pressed=true]').length === 2")
        two = pixels(page, ".stage canvas")
        assert two != one
        page.tab.locator(".chip", has_text="1·1").click()
        page.wait("document.querySelectorAll('.chip[aria-pressed=true]').length === 1")
        page.tab.locator("button", has_text="Whole layer").click()
        page.wait("document.querySelectorAll('.chip[aria-pressed=true]').length === 2")
        stage = page.tab.locator(".stage-box").first
        stage.focus()
        stage.press("ArrowUp")
        stage.press("ArrowDown")
        lines = page.tab.locator(".spoken").text_content().split("; ")
        strongest = np.sort(patterns[1, 1, -1])[::-1][:3]
        spoken = [float(part.split()[-1]) for part in next(x for x in lines if x.startswith("1·1")).split(", ")]
        assert spoken == pytest.approx(strongest, abs=0.006)
        page.tab.keyboard.press("Enter")
        page.wait("document.body.dataset.drawn > 3")
        assert pixels(page, ".stage canvas") != two


def test_two_steps_and_two_runs_are_compared(browser: Any, server: str, logs: Path) -> None:
    first, second = recorded(logs, "small", 12), recorded(logs, "small", 2)
    with Page(browser, frame(server, "run=small&view=map&head=1&compare=1&other_step=2&units=tokens")) as page:
        page.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        titles = page.tab.locator(".stage:not([hidden]) h3").all_text_contents()
        assert titles == [
            "small · step 12 · layer 0, head 1",
            "small · step 2 · layer 0, head 1",
            "Difference: the second minus the first",
        ]
        stage = page.tab.locator(".stage-box").nth(2)
        stage.focus()
        stage.press("ArrowUp")
        stage.press("ArrowUp")
        _, value, both = page.tab.locator(".spoken").text_content().split("; ")
        a, b = first[0, 1, -2, 0], second[0, 1, -2, 0]
        assert float(value.replace("−", "-")) == pytest.approx(b - a, abs=0.01)
        assert [float(word) for word in both.split(" and ")] == pytest.approx([a, b], abs=0.006)
        page.tab.locator("select[aria-label='Run to compare with']").select_option("single")
        page.wait("document.querySelectorAll('.stage h3')[1].textContent === 'single · step 2 · layer 0, head 0'")
        assert not page.errors


def test_two_heads_are_compared_with_their_difference(browser: Any, server: str, logs: Path) -> None:
    """Chosen from the lists, of one step: both keep their own pattern, and the third is the second less the first."""
    patterns = recorded(logs, "small", 12)
    first, second = patterns[0, 1], patterns[1, 0]
    with Page(browser, frame(server, "run=small&view=map&head=1&units=tokens")) as page:
        page.wait(is_at(12))
        page.tab.locator("button", has_text="Compare").click()
        page.wait("document.querySelectorAll('.stage h3')[1].textContent === 'single · step 12 · layer 0, head 0'")
        page.tab.locator("select[aria-label='Run to compare with']").select_option("small")
        page.tab.locator("select[aria-label='Head to compare with']").select_option("2")
        page.wait("document.querySelectorAll('.stage:not([hidden])').length === 3")
        page.wait("document.querySelectorAll('.stage h3')[1].textContent.endsWith('layer 1, head 0')")
        titles = page.tab.locator(".stage:not([hidden]) h3").all_text_contents()
        assert titles == [
            "small · step 12 · layer 0, head 1",
            "small · step 12 · layer 1, head 0",
            "Difference: the second minus the first",
        ]
        query, key = first.shape[0] - 2, 3
        a, b = first[query, key], second[query, key]
        for place, expected in enumerate((a, b, b - a)):
            stage = page.tab.locator(".stage-box").nth(place)
            stage.focus()
            stage.press("Escape")
            for arrow in ("ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight"):  # from the last row's start
                stage.press(arrow)
            _, value, where = page.tab.locator(".spoken").text_content().split("; ")
            assert float(value.replace("−", "-")) == pytest.approx(expected, abs=0.01), place
        both = [float(word) for word in where.split(" and ")]
        assert both == pytest.approx([a, b], abs=0.006)
        drawn = page.tab.eval_on_selector_all(".stage canvas", "all => all.map(one => one.toDataURL())")
        assert len(set(drawn)) == 3
        page.tab.locator("select[aria-label='Head to compare with']").select_option("1")  # with itself: no difference
        page.wait("document.querySelectorAll('.stage h3')[1].textContent.endsWith('layer 0, head 1')")
        page.tab.locator(".stage-box").nth(2).press("ArrowUp")
        assert page.tab.locator(".spoken").text_content().split("; ")[1].lstrip("+−") == "0.00"
        page.tab.locator("button", has_text="Compare").click()
        page.wait("document.querySelectorAll('.stage:not([hidden])').length === 1")
        assert not page.errors


def test_an_own_text_keeps_its_lines(browser: Any, server: str) -> None:
    """A field of one line dropped them. Enter runs the text, Shift and Enter begin a line."""
    with Page(browser, frame(server)) as page:
        page.wait(is_at(12))
        page.tab.route("**/own_text", lambda route: route.fulfill(status=400, json={"error": "No such luck."}))
        page.tab.locator(".own textarea").fill("one")
        page.tab.keyboard.press("Shift+Enter")
        page.tab.keyboard.type("two")
        with page.tab.expect_request("**/own_text") as asked:
            page.tab.keyboard.press("Enter")
        assert asked.value.post_data_json["text"] == "one\ntwo"
        page.wait("document.querySelector('.fault').textContent === 'No such luck.'")


def test_an_own_text_is_run_through_the_nearest_checkpoint(browser: Any, server: str, logs: Path) -> None:
    kept = sorted(int(path.name[5:]) for path in (logs / "small" / "checkpoints").glob("step-*"))
    with Page(browser, frame(server, "run=small&step=2&view=map")) as page:
        page.wait(is_at(2))
        busy = {"status": 503, "json": {"error": "Another text is being run: try again in a moment."}}
        page.tab.route("**/own_text", lambda route: route.fulfill(**busy), times=1)
        page.tab.locator(".own textarea").fill("the <b>dog</b>")
        # At once, so that step 2 is still on view: the player that goes on would leave the text behind.
        page.tab.evaluate("for (const one of ['.play', '.own button']) document.querySelector(one).click()")
        page.wait("document.querySelector('.note').textContent.startsWith('Another text is being run; yours comes')")
        page.wait("document.querySelector('.note').textContent.startsWith('Your text through')")
        note = page.tab.locator(".note[role=status]").text_content()
        assert 2 not in kept and f"step {kept[0]}, the nearest to step 2" in note
        assert page.tab.locator(".step").text_content() == f"step {kept[0]}"
        assert page.tab.locator(".live").text_content() == ""
        assert page.tab.locator(".play").get_attribute("aria-label") == "Play"
        assert [url.endswith("/own_text") for url in page.requests].count(True) == 2  # one more, for it was busy
        stage = page.tab.locator(".stage-box").first
        stage.focus()
        stage.press("ArrowUp")
        assert "> → t" in page.tab.locator(".spoken").text_content()
        assert "<title>Attention · small" in page.save("HTML").read_text("utf-8")
        page.tab.route("**/own_text", lambda route: route.fulfill(status=400, json={"error": "No such luck."}))
        page.tab.locator("button", has_text="Save").click()
        page.tab.locator("button", has_text="HTML").click()
        page.wait("document.querySelector('.fault').textContent === 'No such luck.'")
        assert not page.errors


def test_an_own_text_has_its_unknown_words_named_and_leaves_no_trace(browser: Any, server: str) -> None:
    """After it, another text opens as by itself, and the address no longer has the own one."""
    tokens, words = ["the", "␣Z", "e", "b", "␣", "·", "ж", "у", "␣cat", "."], [0, 1, 4, 8, 9]
    spelled = snapshots.encode(12, [snapshots.ShownProbe("the Zeb жу cat.", tokens, patterns(2, 2, 10), words=words)])
    with Page(browser, frame(server, "run=small")) as page:
        page.wait(is_at(12))
        address = page.tab.evaluate("location.hash")
        page.tab.route("**/own_text", lambda route: route.fulfill(body=spelled))
        page.tab.locator(".own textarea").fill("the Zeb жу cat.")
        page.tab.locator(".own button").click()
        page.wait("document.querySelector('.note').textContent.startsWith('Your text through')")
        note = page.tab.locator(".note[role=status]").text_content()
        assert note.endswith(
            "In this text the tokenizer has no token for Zeb, жу: the model reads them in small pieces."
        )
        assert "text%3Dthe%2BZeb" in page.tab.evaluate("location.hash")
        page.tab.get_by_label("Text", exact=True).select_option("0")
        page.wait("document.querySelector('.note').hidden")
        assert page.tab.evaluate("location.hash") == address
        assert not page.errors


def test_the_view_can_be_taken_away(browser: Any, server: str, tmp_path: Path) -> None:
    with Page(browser, frame(server, "run=small&head=3&step=4")) as page:
        page.wait(is_at(4))
        shutil.copy(page.save("HTML"), tmp_path / "saved.html")
    with Page(browser, (tmp_path / "saved.html").as_uri()) as page:
        page.wait(is_at(4))
        assert page.tab.locator("h2").text_content() == "Layer 1, head 1"
        page.tab.locator("input[type=range]").fill("12")
        page.wait(is_at(12))


def test_a_run_that_goes_on_is_followed(browser: Any, server: str, logs: Path) -> None:
    run = logs / "small"
    content = snapshots.path(run, 12).read_bytes()
    try:
        with Page(browser, frame(server)) as page:
            page.wait(is_at(12))
            for step in (14, 16):  # the viewer asks every three seconds
                snapshots.write(run, step, changed(content, step=step))
            page.wait(is_at(16))
            page.tab.locator("input[type=range]").fill("4")
            page.wait(is_at(4))
            (run / "attention" / "step-000018.heads").write_bytes(content[:-5])
            page.wait("document.querySelector('input[type=range]').max === '18'")
            assert page.tab.evaluate(is_at(4)), "one who looks at an earlier step stays there"
            page.tab.locator("input[type=range]").fill("18")
            page.wait("document.querySelector('.fault').textContent === 'Step 18: This snapshot is cut short.'")
            with snapshots.path(run, 14).open("r+b") as file:
                snapshots.read_header(file)
                first = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([first ^ 4]))
            page.tab.locator("input[type=range]").fill("14")
            page.wait("document.querySelector('.fault').textContent.startsWith('Step 14: This snapshot is damaged')")
            page.tab.locator("input[type=range]").fill("12")
            page.wait(is_at(12))
            page.tab.locator("button[aria-label=Play]").click()
            page.wait("document.querySelector('.fault').textContent.startsWith('Step 14')")
            page.wait("document.body.dataset.step === '16' && document.querySelector('.fault').hidden")
    finally:
        for step in (14, 16, 18):
            snapshots.path(run, step).unlink(missing_ok=True)


def test_it_works_under_a_path_prefix_with_the_python_loader_on_a_phone_in_the_dark(browser: Any, logs: Path) -> None:
    with (
        tensorboard(logs, "--path_prefix", "/foo/bar", "--load_fast", "false") as address,
        Page(browser, frame(address), width=400, height=800, dark=True) as page,
    ):
        page.wait(is_at(12))
        assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not page.errors


def test_names_and_tokens_are_never_markup(browser: Any, server: str, logs: Path) -> None:
    odd = logs / "<img src=x onerror='document.title=\"hit\"'>"
    shutil.copytree(logs / "small" / "attention", odd / "attention")
    try:
        for file in (odd / "attention").glob("*.heads"):
            probes = header_of(file.read_bytes())["probes"]
            odd_probes = [{**probes[0], "text": "<img src=x>."}, *probes[1:]]
            file.write_bytes(changed(file.read_bytes(), probes=odd_probes))
        with Page(browser, frame(server, f"run={quote(odd.name)}")) as page:
            page.wait(is_at(12))
            assert page.tab.locator("select[aria-label=Run]").input_value() == odd.name
            assert page.tab.locator("img").count() == 0 and page.tab.title() != "hit"
    finally:
        shutil.rmtree(odd)


def test_twelve_layers_of_twelve_heads_on_512_tokens_are_redrawn_in_50_milliseconds(
    browser: Any, server: str, logs: Path
) -> None:
    """The best of several redraws, for the machine may be busy; a step's data comes in 100 ms."""
    run = logs / "large"
    run.mkdir()
    pattern = np.tril(np.random.default_rng(0).random((1, 1, 512, 512), dtype=np.float32) ** 20 + 1e-6)
    pattern /= pattern.sum(axis=-1, keepdims=True)
    probe = snapshots.ShownProbe("long", ["token"] * 512, np.broadcast_to(pattern, (12, 12, 512, 512)))
    scores = {"induction": np.random.default_rng(0).random((12, 12))}
    try:
        content = snapshots.encode(1, [probe], scores)
        for step in (1, 2):
            snapshots.write(run, step, changed(content, step=step))
        with Page(browser, frame(server, "run=large&shown=0.1.2.3")) as page:
            page.wait("document.querySelectorAll('.cell').length === 144")
            redraws, fetches = [], []
            for head in (13, 14, 26, 25, 24, 12):
                page.tab.locator(f".cell[data-head='{head}']").click()
                page.wait(f"document.querySelector('.cell.chosen').dataset.head === '{head}'")
                redraws.append(float(page.tab.evaluate("document.body.dataset.redraw")))
                fetches.append(page.tab.evaluate(
                    "performance.getEntriesByType('resource').filter(e => e.name.includes('snapshot')).at(-1).duration"
                ))  # fmt: skip
            print(f"redraws took {redraws} ms, fetches {fetches} ms")  # 50 and 100 are the goals on a quiet machine
            assert min(redraws) < 1000 and min(fetches) < 2000  # the bounds only guard against what grows too fast
            assert not page.errors
    finally:
        shutil.rmtree(run)


def test_a_run_of_1000_snapshots_opens_in_two_seconds(browser: Any, server: str, logs: Path) -> None:
    """Counted from when the frame begins to load; every snapshot can be reached."""
    run = logs / "long"
    run.mkdir()
    scores = {name: np.random.default_rng(0).random((4, 4)) for name in ("induction", "entropy", "distance")}
    pattern = np.tril(np.ones((4, 4, 64, 64), np.float32)) / np.arange(1, 65, dtype=np.float32)[:, None]
    content = snapshots.encode(0, [snapshots.ShownProbe("long", ["token"] * 64, pattern)], scores)
    try:
        for step in range(1000):
            snapshots.write(run, step, changed(content, step=step))
        taken = []
        for _ in range(3):  # the best, for the machine may be busy
            with Page(browser, frame(server, "run=long")) as page:
                page.wait(is_at(999))
                page.wait("!document.querySelector('.chart-box').hidden")
                taken.append(page.tab.evaluate("performance.now()") / 1000)
                page.tab.locator("input[type=range]").fill("517")
                page.wait(is_at(517))
        assert min(taken) < 2, taken
        listed = json.load(urllib.request.urlopen(f"{server}/data/plugin/attention/run?run=long", timeout=SLOW / 1000))
        assert listed["steps"] == list(range(1000))
    finally:
        shutil.rmtree(run)
