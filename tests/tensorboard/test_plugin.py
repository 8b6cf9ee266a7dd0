"""The Attention tab's server side, through TensorBoard's WSGI application."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from werkzeug.exceptions import BadRequest, ServiceUnavailable
from werkzeug.test import Client, TestResponse

from minitx.data.tokenizer import Tokenizer
from minitx.heads import snapshots
from minitx.heads.snapshots import ShownProbe, encode
from minitx.run import checkpoints
from minitx.run.folder import Run
from minitx.tensorboard.plugin.own_text import OwnText
from minitx.tensorboard.plugin.page import page, style
from minitx.tensorboard.plugin.plugin import AttentionPlugin
from minitx.tensorboard.writer import EventWriter
from tests.heads.test_snapshots import header_of, patterns, read_patterns
from tests.small import small_config, small_model, small_text

BASE = "/data/plugin/attention"
ODD = 'odd <img src=x onerror=alert(1)> & "run" é'
PACKAGE = Path(__file__).parents[2] / "minitx" / "tensorboard" / "plugin"


def application(*arguments: str) -> Client:
    """A client of TensorBoard as its command line would start it, with the Python loader."""
    from tensorboard import default, program
    from tensorboard.backend.application import TensorBoardWSGIApp

    board = program.TensorBoard(default.get_plugins())
    board.configure(argv=["tensorboard", "--load_fast", "false", "--reload_interval", "0", *arguments])
    provider = board._make_data_provider()[0] if hasattr(board, "_make_data_provider") else None
    return Client(TensorBoardWSGIApp(board.flags, board.plugin_loaders, provider, board.assets_zip_provider))


def add_run(folder: Path, steps: list[int], seq: int = 4, text: str = "a text") -> None:
    """A run with an event file, as every run has, and snapshots of two probes; head 2 scores `step` / 1000."""
    EventWriter(folder).close()
    for step in steps:
        probes = [
            ShownProbe(
                text,
                [f"t{i}" for i in range(seq)],
                patterns(2, 2, seq, seed=step),
                scores={"induction": np.full((2, 2), step / 100)},
            ),
            ShownProbe("long", ["x"] * 80, patterns(2, 2, 80, seed=step)),
        ]
        scores = {"induction": np.array([[0, 0.1], [step / 1000, np.nan]])}
        snapshots.write(folder, step, encode(step, probes, scores, {"induction": 0.05}))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with good, odd and broken runs, and things outside it that must stay outside."""
    root = tmp_path_factory.mktemp("tensorboard")
    logs = root / "logs"
    add_run(logs / "good", [10, 20, 30])
    add_run(logs / "deep" / "er", [5])
    add_run(logs / ODD, [1])
    add_run(logs / "broken", [1, 2, 3])
    (logs / "broken" / "attention" / "step-000002.heads").write_bytes(b"\x00" * 50)
    whole = (logs / "broken" / "attention" / "step-000003.heads").read_bytes()
    (logs / "broken" / "attention" / "step-000003.heads").write_bytes(whole[:-9])
    add_run(root / "outside", [7])
    (root / "secret.heads").write_bytes(encode(8, [ShownProbe("secret", ["s"], patterns(1, 1, 1))]))
    (logs / "linked").symlink_to(root / "outside")
    (logs / "half").mkdir()
    (logs / "half" / "attention").symlink_to(root / "outside" / "attention")
    (logs / "good" / "attention" / "step-000008.heads").symlink_to(root / "secret.heads")
    (logs / "good" / "attention" / "step-000009.heads").mkdir()
    return logs


@pytest.fixture(scope="module")
def client(logs: Path) -> Client:
    return application("--logdir", str(logs))


def ask(client: Client, route: str, **values: Any) -> TestResponse:
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in values.items())
    return client.get(f"{BASE}/{route}?{query}")


def refusal(response: TestResponse, status: int) -> str:
    """The one sentence of a refusal."""
    assert response.status_code == status, response.data
    sentence = json.loads(response.data)["error"]
    assert sentence.endswith(".") and "Traceback" not in sentence
    return str(sentence)


def test_the_package_declares_the_plugin() -> None:
    loaders = [entry.value for entry in entry_points(group="tensorboard_plugins") if entry.name == "attention"]
    assert "minitx.tensorboard.plugin.loader:AttentionLoader" in loaders, "install the project again: pip install -e ."


def test_the_tab_is_listed_and_active(client: Client) -> None:
    listing = json.loads(client.get("/data/plugins_listing").data)["attention"]
    assert listing["enabled"] and listing["tab_name"] == "Attention"
    module = client.get(f"{BASE}/{listing['loading_mechanism']['module_path'].rpartition('attention/')[2]}")
    assert module.status_code == 200 and "export function render" in module.text


def test_a_damaged_or_swapped_step_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    run = tmp_path / "damaged"
    add_run(run, [1, 2, 3, 4])
    client = application("--logdir", str(tmp_path))
    flipped = bytearray(snapshots.path(run, 2).read_bytes())
    flipped[-1] ^= 4
    snapshots.path(run, 2).write_bytes(flipped)
    snapshots.path(run, 4).write_bytes(snapshots.path(run, 1).read_bytes())
    whole = [ask(client, "snapshot", run="damaged", step=step, probe=1, heads="3") for step in (1, 3)]
    assert [header_of(response.data)["step"] for response in whole] == [1, 3]
    sentence = refusal(ask(client, "snapshot", run="damaged", step=2, probe=1, heads="3"), 422)
    assert sentence == "Step 2: This snapshot is damaged: its patterns do not fit their checksums."
    sentence = refusal(ask(client, "snapshot", run="damaged", step=4), 422)
    assert sentence == "Step 4: This snapshot is of step 1: it was renamed."
    answer = json.loads(ask(client, "run", run="damaged").data)
    assert (answer["newest"]["step"], answer["fault"]) == (3, sentence)
    answer = json.loads(ask(client, "scores", run="damaged", name="induction").data)
    assert [row is None for row in answer["values"]] == [False, False, False, True]
    data = ask(client, "page", run="damaged", probe=1).text.split('id="data">')[1].split("</script>")[0]
    assert len(json.loads(data)["snapshots"]) == 2


def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    """Pipes, devices, loops of links, folders and a file of 3 GB, in place of a snapshot and of what lies around it."""

    def loop(path: Path) -> None:
        path.symlink_to(path.name)

    def sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(3 << 30)

    def device(path: Path) -> None:
        path.symlink_to("/dev/zero")

    odd: list[Callable[[Path], None]] = [os.mkfifo, loop, sparse, Path.mkdir, device]
    for number, make in enumerate(odd):
        run = tmp_path / str(number)
        add_run(run, [1])
        for name in ("data.json", "checkpoints", "attention/step-000002.heads"):
            make(run / name)
        (tmp_path / f"no-{number}").mkdir()
        make(tmp_path / f"no-{number}" / "attention")
    client = application("--logdir", str(tmp_path))
    assert json.loads(ask(client, "runs").data)["runs"] == [str(number) for number in range(len(odd))]
    for number, make in enumerate(odd):
        assert ask(client, "snapshot", run=number, step=1).status_code == 200
        sentence = refusal(ask(client, "snapshot", run=number, step=2), 422 if make is sparse else 404)
        assert ("Step 2: step-000002.heads cannot be read" if make is sparse else "no snapshot of step 2") in sentence
        answer = json.loads(ask(client, "run", run=number).data)
        assert answer["newest"]["step"] == 1 and answer["fault"] and not answer["checkpoints"]
        for route in ("scores", "page"):
            assert ask(client, route, run=number, step=1, name="induction").status_code == 200


def test_without_snapshots_the_tab_is_listed_as_inactive(tmp_path: Path) -> None:
    EventWriter(tmp_path / "run").close()
    listing = json.loads(application("--logdir", str(tmp_path)).get("/data/plugins_listing").data)["attention"]
    assert not listing["enabled"]


def test_runs_are_those_with_snapshots_inside_the_log_folder(client: Client) -> None:
    assert json.loads(ask(client, "runs").data)["runs"] == sorted(["good", "deep/er", ODD, "broken"])


def test_the_log_folder_itself_can_be_the_run(tmp_path: Path) -> None:
    add_run(tmp_path, [3])
    client = application("--logdir", str(tmp_path))
    assert json.loads(ask(client, "runs").data)["runs"] == ["."]
    assert ask(client, "snapshot", run=".", step=3).status_code == 200


def test_a_log_folder_given_by_its_home_or_by_a_link_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "real" / "run", [3])
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (str(tmp_path / "alias"), "~/real"):
        assert ask(application("--logdir", folder), "snapshot", run="run", step=3).status_code == 200


def test_logdir_spec_gets_a_sentence(tmp_path: Path) -> None:
    add_run(tmp_path / "run", [3])
    answer = json.loads(ask(application("--logdir_spec", f"a:{tmp_path}"), "runs").data)
    assert answer["runs"] == [] and "--logdir FOLDER" in answer["note"]


def test_a_run_is_described_by_its_steps_and_newest_whole_header(client: Client) -> None:
    answer = json.loads(ask(client, "run", run="good").data)
    assert answer["steps"][-3:] == [10, 20, 30]
    assert [len(probe["tokens"]) for probe in answer["newest"]["probes"]] == [4, 80]
    answer = json.loads(ask(client, "run", run="broken").data)
    assert answer["newest"]["step"] == 1 and "cut short" in answer["fault"]


def test_scores_are_returned_step_by_step(client: Client, logs: Path) -> None:
    answer = json.loads(ask(client, "scores", run="good", name="induction", after=9).data)
    assert answer == {
        "steps": [10, 20, 30],
        "values": [[0, 0.1, 0.01, None], [0, 0.1, 0.02, None], [0, 0.1, 0.03, None]],
        "chance": [0.05] * 3,
    }
    assert json.loads(ask(client, "scores", run="good", name="nothing", after=20).data)["values"] == [None]
    assert json.loads(ask(client, "scores", run="broken", name="induction").data)["values"][1:] == [None, None]


def test_scores_of_one_text_are_told_apart_from_those_of_validation_text(client: Client) -> None:
    asked = {probe: ask(client, "scores", run="good", name="induction", after=9, probe=probe) for probe in (0, 1, 7)}
    values = {probe: json.loads(response.data)["values"] for probe, response in asked.items()}
    assert values == {0: [[0.1] * 4, [0.2] * 4, [0.3] * 4], 1: [None] * 3, 7: [None] * 3}


def test_scores_change_with_the_file(client: Client, logs: Path) -> None:
    add_run(logs / "changing", [1])
    assert json.loads(ask(client, "scores", run="deep/er", name="induction").data)["values"][0][2] == 0.005
    file = snapshots.path(logs / "deep" / "er", 5)
    content = encode(5, [ShownProbe("a", ["a"], patterns(2, 2, 1))], {"induction": np.full((2, 2), 0.75)})
    file.write_bytes(content)
    assert json.loads(ask(client, "scores", run="deep/er", name="induction").data)["values"] == [[0.75] * 4]
    shutil.rmtree(logs / "changing")


def test_a_snapshot_holds_one_probe_and_the_heads_asked_for(client: Client) -> None:
    response = ask(client, "snapshot", run="good", step=20, probe=1, heads="3,0")
    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    header = header_of(response.data)
    assert header["step"] == 20 and header["probes"][0]["whole"] == [0, 3]
    plain = ask(client, "snapshot", run="good", step=20)
    weights = read_patterns(plain.data)
    np.testing.assert_allclose(weights, patterns(2, 2, 4, seed=20), atol=0.004)


def test_odd_names_are_data(client: Client) -> None:
    response = ask(client, "run", run=ODD)
    assert response.status_code == 200 and response.content_type.startswith("application/json")


@pytest.mark.parametrize(
    "run",
    ["../outside", "..", "../logs/good", "good/..", "good/../good", "/etc", "linked", "half", "", " good", "good/",
     "good\x00", "..\\outside", "%2e%2e/outside", "good/attention", "ｇood"],
)  # fmt: skip
def test_nothing_outside_the_log_folder_can_be_asked_for(client: Client, run: str) -> None:
    for route, values in (("run", {}), ("scores", {"name": "x"}), ("snapshot", {"step": 7}), ("page", {"step": 7})):
        assert "There is no run" in refusal(ask(client, route, run=run, **values), 404)


@pytest.mark.parametrize("step", [8, 9, 11, -10, 10**11])
def test_links_folders_and_missing_steps_are_not_read(client: Client, step: int) -> None:
    assert "no snapshot of step" in refusal(ask(client, "snapshot", run="good", step=step), 404)


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({}, 400, "run is missing"),
        ({"run": "good"}, 400, "step is missing"),
        ({"run": "good", "step": "ten"}, 400, "step is 'ten'"),
        ({"run": "good", "step": "9" * 5000}, 400, "whole number"),
        ({"run": "good", "step": "١٠"}, 400, "whole number"),
        ({"run": "good", "step": 10, "probe": 2}, 422, "no probe 2"),
        ({"run": "good", "step": 10, "probe": -1}, 422, "no probe -1"),
        ({"run": "good", "step": 10, "heads": "1,b"}, 400, "heads is 'b'"),
        ({"run": "good", "step": 10, "heads": ",".join(["1"] * 300)}, 400, "at most"),
        ({"run": "broken", "step": 2}, 422, "not a snapshot"),
        ({"run": "broken", "step": 3}, 422, "cut short"),
    ],
)
def test_a_bad_request_is_answered_by_a_sentence(
    client: Client, values: dict[str, Any], status: int, sentence: str
) -> None:
    assert sentence in refusal(ask(client, "snapshot", **values), status)


@pytest.mark.parametrize("name", ["../plugin.py", "..%2fplugin.py", "%2e%2e/page.py", "nothing.js", "", "style.css/x"])
def test_only_the_viewers_own_files_are_served(client: Client, name: str) -> None:
    assert client.get(f"{BASE}/static/{name}").status_code == 404


def test_the_viewers_files_are_served_with_their_types(client: Client) -> None:
    for file in filter(Path.is_file, (PACKAGE / "static").rglob("*")):
        response = client.get(f"{BASE}/static/{file.relative_to(PACKAGE / 'static').as_posix()}")
        assert response.data == (style().encode() if file.name == "style.css" else file.read_bytes())
        assert response.mimetype == {"js": "text/javascript", "css": "text/css"}[file.suffix[1:]]


def test_a_page_holds_all_steps_of_a_probe(client: Client) -> None:
    response = ask(client, "page", run="good", probe=0, step=20, view="head=1")
    assert response.status_code == 200 and "attachment" in response.headers["Content-Disposition"]
    data = json.loads(response.text.split('id="data">')[1].split("</script>")[0])
    assert len(data["snapshots"]) == 3 and data["view"] == "head=1" and data["title"] == "good"


def embedded(response: TestResponse) -> dict[str, Any]:
    """The data of a page."""
    data: dict[str, Any] = json.loads(response.text.split('id="data">')[1].split("</script>")[0])
    return data


def test_a_page_holds_all_steps_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dropped nine of ten steps of a short probe, for it counted the bytes of the long one beside it."""
    steps = list(range(1, 25))
    add_run(tmp_path / "run", steps)
    client = application("--logdir", str(tmp_path))
    whole = ask(client, "page", run="run", probe=1)
    assert "<title>Attention · run · 24 of 24 steps</title>" in whole.text and embedded(whole)["steps_of"] == 24
    size, empty = len(whole.data), len(page([], title="run", steps_of=24).encode())
    short = len(ask(client, "page", run="run", probe=0).data)
    assert short - empty < (size - empty) / 5
    for limit, held in ((size + 10, 24), (short + 10, 24), (size - 1, 12), (empty + (size - empty) // 5, 4)):
        monkeypatch.setattr("minitx.tensorboard.plugin.run_page.MAX_PAGE_BYTES", limit)
        response = ask(client, "page", run="run", probe=0 if limit == short + 10 else 1)
        data = embedded(response)
        shown = [header_of(base64.b64decode(content))["step"] for content in data["snapshots"]]
        assert len(response.data) <= limit and shown[-1] == 24 and data["steps_of"] == 24, limit
        assert len(shown) == held and f"<title>Attention · run · {held} of 24 steps</title>" in response.text, limit
        gaps = {b - a for a, b in itertools.pairwise(shown)}
        assert len(gaps) == 1, "steps are evenly spread"


def test_a_page_never_grows_beyond_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 × 12 heads on 512 tokens took 25.7 MB at a single step. The heads that are shown come first."""
    add_run(tmp_path / "run", [1, 2])
    client = application("--logdir", str(tmp_path))
    empty = len(page([], title="run", steps_of=2, view="head=3&shown=3.2").encode())
    one_head = 4 * 80 * 81 // 2 // 3
    header = 4 * (len(ask(client, "snapshot", run="run", step=2, probe=1).data) + 60) // 3
    monkeypatch.setattr("minitx.tensorboard.plugin.run_page.MAX_PAGE_BYTES", empty + header + 2 * one_head + 20)
    response = ask(client, "page", run="run", probe=1, step=1, view="head=3&shown=3.2")
    (content,) = embedded(response)["snapshots"]
    entry = header_of(base64.b64decode(content))
    assert entry["step"] == 1 and entry["probes"][0]["whole"] == [2, 3]
    assert len(response.data) <= empty + header + 2 * one_head + 20 and "1 of 2 steps" in response.text
    monkeypatch.setattr("minitx.tensorboard.plugin.run_page.MAX_PAGE_BYTES", empty + 1000)
    assert "more than the" in refusal(ask(client, "page", run="run", probe=1), 422)


def test_nothing_is_told_under_a_foreign_address(client: Client, logs: Path) -> None:
    """A page elsewhere could read all runs by DNS rebinding, though own texts were refused."""
    for route in ("runs", "run?run=good", "scores?run=good&name=x", "snapshot?run=good&step=10", "page?run=good"):
        for host in ("evil.example", "evil.example:6006", "localhost.evil.example", "[::2]"):
            sentence = refusal(client.get(f"{BASE}/{route}", headers={"Host": host}), 403)
            assert "--attention_own_text" in sentence and host in sentence
        for host in ("localhost", "localhost:6006", "127.0.0.1:80", "[::1]:6006"):
            assert client.get(f"{BASE}/{route}", headers={"Host": host}).status_code == 200
    assert client.get(f"{BASE}/static/index.js", headers={"Host": "evil.example"}).status_code == 200
    for arguments in (["--attention_own_text"], ["--bind_all"], ["--host", "0.0.0.0"]):
        open_client = application("--logdir", str(logs), *arguments)
        assert open_client.get(f"{BASE}/runs", headers={"Host": "board.example"}).status_code == 200


def test_a_post_where_none_is_expected_is_refused(client: Client) -> None:
    assert "GET only" in refusal(client.post(f"{BASE}/runs"), 400)
    assert "POST only" in refusal(client.get(f"{BASE}/own_text"), 400)


def own(**values: str) -> dict[str, Any]:
    """The body of a request to run a text, each value as JSON."""
    fields = {"run": '"good"', "step": "1", "text": '"a"', **values}
    return {"data": "{{{}}}".format(",".join(f'"{name}": {value}' for name, value in fields.items())).encode()}


ODD_VALUES = ["", "0", "-1", "1e999", "NaN", "9" * 5000, "good", "\x00", "%00", "\udcff", "../good", "[" * 9000]
ENDLESS = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
"""The environment of a request in chunks, which does not tell its length."""


@pytest.mark.parametrize("name", ["run", "step", "probe", "heads", "name", "after", "view"])
def test_no_parameter_of_a_request_is_trusted(client: Client, name: str) -> None:
    """Every value ends in an answer or in one sentence, and so do bytes that are no text."""
    usual = {"run": "good", "step": 10, "probe": 0, "name": "induction"}
    for route in ("runs", "run", "scores", "snapshot", "page"):
        for value in ODD_VALUES:
            query = {**usual, name: value.encode("utf-8", "surrogateescape")}
            response = client.get(f"{BASE}/{route}?" + urlencode(query))
            if response.status_code != 200:
                assert response.status_code < 500, (route, value)
                refusal(response, response.status_code)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"headers": {}}, "for the Attention tab only"),
        ({"data": b"[]"}, "run is missing"),
        ({"data": b"7"}, "not a table"),
        ({"data": b"{"}, "not JSON"),
        ({"data": b"\xff\xfe"}, "not JSON"),
        ({"data": b"[" * 20_000 + b"]" * 20_000}, "not JSON"),
        ({"data": b'{"run": "good", "step": 1, "text": %b%b}' % (b"[" * 20_000, b"]" * 20_000)}, "not JSON"),
        ({"data": gzip.compress(b'{"run": "good", "step": 1, "text": "a"}')}, "not JSON"),
        ({"data": b" " * 70_000}, "too long"),
        ({**own(text=f'"{"a" * 70_000}"'), "environ_overrides": ENDLESS}, "not JSON"),  # only the start is read
        (own(step="1e999"), "step is inf"),
        (own(step="NaN"), "step is nan"),
        (own(step="1.5"), "step is 1.5"),
        (own(step="true"), "step is True"),
        (own(step='"1"'), "step is '1'"),
        (own(step="-1"), "step is -1"),
        (own(step="1" * 400), "whole number"),
        (own(step="1" * 5000), "not JSON"),
        (own(step="null"), "step is None"),
        (own(step="[1]"), "step is [1]"),
        (own(run="null"), "run is None"),
        (own(run="[]"), "run is []"),
        (own(run='"good\\u0000"'), "There is no run"),
        (own(run='"\\ud800"'), "There is no run"),
        (own(text="7"), "text is 7"),
        (own(text='"\\ud800"'), "a text in Unicode"),
        (own(view="7"), "view is 7"),
        ({"json": {"run": "good", "step": 1, "text": "a"}}, "keeps no checkpoint"),
        ({"json": {"run": "../outside", "step": 1, "text": "a"}}, "There is no run"),
        ({"base_url": "http://evil.example"}, "only under the address localhost"),
    ],
)
def test_an_own_text_is_refused_with_a_sentence(client: Client, changes: dict[str, Any], sentence: str) -> None:
    request = {"headers": {"X-Minitx": "1"}, **changes}
    if "json" not in request:
        request.setdefault("data", b"{}")
    response = client.post(f"{BASE}/own_text", **request)
    assert sentence in refusal(response, response.status_code) and response.status_code in (400, 404, 413, 422)


@pytest.mark.parametrize(
    ("arguments", "is_offered"),
    [
        (["--host", "localhost"], True),
        (["--host", "127.0.0.1"], True),
        ([], True),
        (["--bind_all"], False),
        (["--host", "0.0.0.0"], False),
        (["--bind_all", "--attention_own_text"], True),
    ],
)
def test_own_texts_are_offered_on_localhost_or_by_a_flag(
    tmp_path: Path, arguments: list[str], is_offered: bool
) -> None:
    client = application("--logdir", str(tmp_path), *arguments)
    assert (json.loads(ask(client, "runs").data)["own_text"] == "") == is_offered


class Flags:
    """TensorBoard's flags as they are by default."""

    host, bind_all, attention_own_text = None, False, False


@pytest.mark.parametrize(("text", "sentence"), [("  ", "empty"), ("a" * 5000, "at most 4000")])
def test_own_texts_are_bounded(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        OwnText(Flags()).run(tmp_path, 1, text)


@pytest.mark.parametrize("path", [None, "", "run"])
def test_an_own_text_runs_no_code_of_the_folders_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """Modules of any name in the current folder, the log folder, the run folder and PYTHONPATH stay unread."""
    config = replace(small_config(tmp_path), out=str(tmp_path / "run"))
    tokenizer = Tokenizer.train([small_text(20)], config.tokenizer)
    run = Run.create(config.out, config, tokenizer, {})
    checkpoints.save(run.path, small_model(tokenizer.vocab_size), {}, {"step": 3}, best=True, keep=1)
    for folder in (tmp_path, run.path):
        (folder / "minitx").mkdir()
        for name in ("torch", "json", "runpy", "numpy", "sitecustomize", "usercustomize", "minitx/__init__"):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'code-was-run')!r}, 'a').write(__file__)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / path}{os.pathsep}.")
    content = OwnText(Flags()).run(run.path, 3, "the cat")
    assert header_of(content)["probes"][0]["tokens"] == list("the␣cat")
    assert not (tmp_path / "code-was-run").exists()


def test_one_own_text_is_run_at_a_time(tmp_path: Path) -> None:
    box = OwnText(Flags())
    with box.worker._busy, pytest.raises(ServiceUnavailable, match="Another text"):
        box.run(tmp_path, 1, "a")
    with pytest.raises(BadRequest, match=r"is not a run folder|damaged|no run|could not be run"):
        box.run(tmp_path, 1, "a")  # and the next one has its turn


def test_a_request_while_another_text_is_run_is_answered_by_busy(tmp_path: Path) -> None:
    add_run(tmp_path / "run", [1])
    (tmp_path / "run" / "checkpoints" / "step-000001").mkdir(parents=True)
    plugin = AttentionPlugin(SimpleNamespace(logdir=str(tmp_path), flags=Flags()))
    client = Client(plugin.get_plugin_apps()["/own_text"])
    with plugin.own_text.worker._busy:
        response = client.post("/", headers={"X-Minitx": "1"}, json={"run": "run", "step": 1, "text": "a"})
    assert "Another text is being run" in refusal(response, 503)


def test_an_own_text_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.tensorboard.plugin.worker.MAX_SECONDS", 0.05)
    with pytest.raises(BadRequest, match="took longer"):
        OwnText(Flags()).run(tmp_path, 1, "a")


def test_the_plugin_never_imports_torch() -> None:
    code = "import sys; from minitx.tensorboard.plugin import loader, plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plugin_that_cannot_be_loaded_leaves_tensorboard_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minitx.tensorboard.plugin.plugin", None)
    add_run(tmp_path / "run", [1])
    listing = json.loads(application("--logdir", str(tmp_path)).get("/data/plugins_listing").data)
    assert "attention" not in listing and "scalars" in listing


def test_a_wheel_carries_the_viewer() -> None:
    import tomllib

    settings = tomllib.loads((PACKAGE.parents[2] / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert settings["package-data"]["minitx.tensorboard.plugin"] == ["*.html", "static/*", "static/*/*"]
    assert all(file.is_file() for file in (PACKAGE / "static").glob("*/*")), "static/*/* takes no deeper folders"
    others = {file.name for file in PACKAGE.iterdir() if file.is_file() and file.suffix != ".py"}
    assert others == {"page.html", "blocks.html"}, "files that the package data leaves out"
