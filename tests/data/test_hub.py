"""Data sets of the Hub, from a small local server: texts arrive, passing faults are tried again, others reported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from minitx.config import DataConfig
from minitx.data import hub as hub_module
from tests.data.test_sources import write
from tests.hub_server import Answering, free_endpoint, serving

ROOT = Path(__file__).parents[2]
COMMIT = "a" * 40
CARD = """---
configs:
- {config_name: default, data_files: [{split: train, path: data/train.parquet}, {split: test, path: data/test.parquet}]}
- {config_name: other, data_files: [{split: train, path: data/test.parquet}]}
---
"""


class Hub(Answering):
    """Speaks as much of the Hub's protocol as loading the data set me/tiny takes."""

    files: dict[str, bytes]
    faults: ClassVar[list[str]] = []
    """What happens to the next requests, one after another: drop, delay, truncate, busy."""
    spoiled: ClassVar[list[str]] = []
    """What happened, and to which request."""
    fault = ""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.fault = ""
        if self.faults and (
            self.faults[0] != "truncate"
            or (self.command == "GET" and "/resolve/" in self.path and "/data/" in self.path)
        ):
            self.fault = self.faults.pop(0)
            self.spoiled.append(f"{self.fault} {self.command} {self.path}")
        if self.fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if self.fault == "delay":
            time.sleep(1.5)  # longer than the tests have the library wait
        super().answer(503 if self.fault == "busy" else status, body, **headers)
        self.close_connection = self.fault == "truncate"

    def send_body(self, body: bytes) -> None:
        super().send_body(body[: len(body) // 2] if self.fault == "truncate" else body)

    def entries(self, names: list[str]) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": n, "size": len(self.files[n]), "oid": hashlib.sha1(self.files[n]).hexdigest()}
            for n in names
        ]

    def do_GET(self) -> None:  # noqa: N802  the base class's name
        body = self.content()
        path = self.path.split("?")[0]
        api, file = f"/api/datasets/me/tiny/revision/{COMMIT}", path.partition("/resolve/")[2].partition("/")[2]
        if "me/tiny" not in path:
            self.answer_json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        elif path in (api, "/api/datasets/me/tiny"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer_json({"id": "me/tiny", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif "/tree/" in path:
            folder = path.partition("/tree/")[2].partition("/")[2]
            self.answer_json(self.entries([name for name in self.files if name.startswith(folder)]))
        elif "/paths-info/" in path:
            self.answer_json(self.entries([name for name in self.files if name.encode() in body]))
        elif file in self.files:
            content = self.files[file]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": COMMIT}
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            self.answer(206 if "Range" in self.headers else 200, part, **headers)
        else:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    do_HEAD = do_POST = do_GET  # noqa: N815  the base class's names


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hub")
    Hub.files = {
        "README.md": CARD.encode(),
        "data/train.parquet": write(folder / "train.parquet", ["a\r\nb \n", "two", ""]).read_bytes(),
        "data/test.parquet": write(folder / "test.parquet", ["held out"]).read_bytes(),
    }
    with serving(Hub) as address:
        yield address


ASK = """
import json, sys
from minitx.config import DataConfig
from minitx.system.errors import UserError
from minitx.data.sources import identity, read
for options, split in json.loads(sys.argv[1]):
    try:
        config = DataConfig(**options)
        answer = [[text for text, *_ in read(config, split, seed=1)], identity(config)["revision"]]
    except UserError as error:
        answer = str(error)
    print(json.dumps(answer))
"""


STREAM = """
import json, sys
from minitx.config import DataConfig, TokenizerConfig
from minitx.data.prepare import prepare
from minitx.data.stream import Stream
for options, windows in json.loads(sys.argv[1]):
    data = DataConfig(**options)
    prepared = prepare(data, TokenizerConfig("char"), 1, progress=False)
    read = []
    for restored in (0, windows // 2):
        stream = Stream(data, prepared, 1, data.readers, 5)
        if restored:
            stream.restore(state)
        for window in range(restored, windows):
            if window == windows // 2:
                state = json.loads(json.dumps(stream.state()))
            read.append(prepared.tokenizer.decode(stream.next()[0].flatten().tolist()))
    print(json.dumps(["".join(read[:windows]), "".join(read[windows:]), stream.epochs]))
"""


def ask(
    endpoint: str, home: Path, *questions: tuple[dict[str, Any], str | int], script: str = ASK, **environment: str
) -> list[Any]:
    """What `script` answers in a process of its own, since the library looks at the endpoint once."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(questions)],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # neither bars nor log lines
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub(hub: str, tmp_path: Path) -> None:
    tiny = {"source": "me/tiny"}
    train = [["a\r\nb \n", "two"], COMMIT]
    plain, streamed, other, test = ask(
        hub,
        tmp_path,
        (tiny, "train"),
        ({**tiny, "streaming": True}, "train"),
        ({**tiny, "name": "other"}, "train"),
        ({**tiny, "max_documents": 1}, "test"),
    )
    assert (plain, streamed) == (train, train)
    assert (other, test) == ([["held out"], COMMIT], [["held out"], COMMIT])
    missing, split, streamed_split, name, column = ask(
        hub,
        tmp_path,
        ({"source": "me/none"}, "train"),
        (tiny, "validation"),
        ({**tiny, "streaming": True}, "validation"),
        ({**tiny, "name": "third"}, "train"),
        ({**tiny, "text_column": "texts"}, "train"),
    )
    assert "me/none is no file here, and no data set on the Hub" in missing
    assert split.endswith("it has train, test.")
    assert streamed_split.endswith("it has train, test.")
    assert "third" in name
    assert "'default', 'other'" in name
    assert "has the columns id, text" in column
    cached = {**tiny, "name": "other"}
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        begin = time.monotonic()
        known, lost = ask(free_endpoint(), tmp_path, (cached, "train"), ({"source": "me/none"}, "train"), **environment)
        assert known == [["held out"], COMMIT]
        assert "the Hub cannot be reached" in lost
        assert time.monotonic() - begin < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "streaming,faults", [(False, ["drop"] * 2), (True, ["drop", "busy", "delay"]), (True, ["truncate"] * 2)]
)
def test_what_passes_on_the_network_is_tried_again(
    hub: str, tmp_path: Path, streaming: bool, faults: list[str]
) -> None:
    Hub.faults[:], Hub.spoiled[:] = faults, []
    config = {"source": "me/tiny", "streaming": streaming}
    (answer,) = ask(hub, tmp_path, (config, "train"), HF_HUB_DOWNLOAD_TIMEOUT="1", HF_HUB_ETAG_TIMEOUT="1")
    assert len(Hub.spoiled) == len(faults) and Hub.faults == [], "the faults did not happen"
    assert answer == [["a\r\nb \n", "two"], COMMIT]


def test_training_reads_a_stream(hub: str, tmp_path: Path) -> None:
    """With faults on the way; the second half once more, in the order that its state keeps."""
    Hub.faults[:], Hub.spoiled[:] = ["drop", "busy", "truncate"], []
    data = {"source": "me/tiny", "val_split": "test", "streaming": "train", "readers": 2, "buffer": 2}
    environment = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ((text, again, epochs),) = ask(hub, tmp_path, (data, 24), script=STREAM, **environment)
    assert len(Hub.spoiled) == 3 and epochs >= 2
    assert text.endswith(again) and again
    first, second = "a\r\nb \n", "two"  # and the end of each, in 24 windows of one token
    assert sorted(text) == sorted(3 * first + first[:3] + 6 * second)


def test_patience_begins_anew_where_reading_made_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against giving up at the first fault of a read that takes longer than the patience."""
    monkeypatch.setattr(hub_module, "MAX_SECONDS", 0.05)
    monkeypatch.setattr(hub_module, "WAITS", (0,))
    faults = [ConnectionResetError("gone")]

    def items() -> Iterator[str]:
        yield "one"
        time.sleep(0.1)
        yield "two"
        if faults:
            raise faults.pop()
        yield "three"

    assert list(hub_module.patiently(DataConfig("me/tiny"), items)) == ["one", "two", "three"]


@pytest.mark.slow
def test_what_does_not_pass_ends_in_a_sentence(hub: str, tmp_path: Path) -> None:
    Hub.faults[:] = ["drop"] * 1000
    try:
        (answer,) = ask(hub, tmp_path, ({"source": "me/tiny"}, "train"), HF_HUB_DOWNLOAD_TIMEOUT="2")
    finally:
        Hub.faults.clear()
    assert isinstance(answer, str) and "me/tiny" in answer and "\n" not in answer
