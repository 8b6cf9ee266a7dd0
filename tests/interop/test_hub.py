"""`minitx export --push` against a small local server, and the model card; transformers loads what the server got."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
import yaml

from minitx.__main__ import main
from minitx.config import Config, TrainConfig
from minitx.config.parsing import instantiate, new_parser, parse
from minitx.heads.roles import ROLES
from minitx.interop.readme import head_rows, readme
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.training.session import train
from tests.hub_server import Answering, free_endpoint, serving
from tests.small import small_config

transformers = pytest.importorskip("transformers", reason="transformers is a test extra")


class Hub(Answering):
    """Speaks as much of the Hub's protocol as pushing a model takes, for the user "me" with the token "right"."""

    files: ClassVar[dict[str, bytes]] = {}
    stored: ClassVar[dict[str, bytes]] = {}
    """Large files by their SHA-256, before a commit names them."""
    created: ClassVar[list[dict[str, Any]]] = []
    is_private: ClassVar[bool] = False
    refused: ClassVar[dict[str, int]] = {}
    """Parts of addresses, and the status that requests for them get."""

    def do_POST(self) -> None:  # noqa: N802  the base class's name
        body, path = self.content(), self.path.split("?")[0]
        for part, status in self.refused.items():
            if part in path:
                self.answer_json({"error": "not today"}, status)
                return
        if self.headers.get("Authorization") != "Bearer right" and not path.startswith("/large/"):
            self.answer_json({"error": "Invalid username or password."}, 401)
        elif path == "/api/whoami-v2":
            self.answer_json({"name": "me", "type": "user"})
        elif path == "/api/repos/create":
            wanted, exists = json.loads(body), bool(self.created)
            self.created.append(wanted)
            type(self).is_private = self.is_private if exists else wanted.get("visibility") == "private"
            url = f"http://{self.headers['Host']}/{wanted['organization']}/{wanted['name']}"
            self.answer_json({"url": url}, 409 if exists else 200)
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif path == "/api/models/me/small" and self.created:
            self.answer_json({"id": "me/small", "private": self.is_private, "tags": [], "siblings": []})
        elif path.startswith("/api/models/me/small/tree/"):
            self.answer_json([{"type": "file", "path": n, "size": 1, "oid": "0" * 40} for n in self.files])
        elif path == "/api/models/me/small/preupload/main":
            modes = {file["path"]: self.mode(file["path"]) for file in json.loads(body)["files"]}
            files = [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]
            self.answer_json({"files": files})
        elif path == "/me/small.git/info/lfs/objects/batch":
            address = f"http://{self.headers['Host']}/large/"
            objects = [{**o, "actions": {"upload": {"href": address + o["oid"]}}} for o in json.loads(body)["objects"]]
            self.answer_json({"transfer": "basic", "objects": objects})
        elif path.startswith("/large/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/large/")
            self.stored[path.removeprefix("/large/")] = body
            self.answer(200)
        elif path == "/api/models/me/small/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "deletedFile":
                    del self.files[value["path"]]
                elif line["key"] != "header":
                    content = self.stored[value["oid"]] if "oid" in value else base64.b64decode(value["content"])
                    self.files[value["path"]] = content
            self.answer_json({"commitUrl": f"http://{self.headers['Host']}/me/small/commit/1", "commitOid": "1" * 40})
        else:
            self.answer(404)

    do_GET = do_PUT = do_POST  # noqa: N815

    @staticmethod
    def mode(name: str) -> str:
        from huggingface_hub import constants

        return "lfs" if name.endswith(".safetensors") and constants.HF_HUB_DISABLE_XET else "regular"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    from huggingface_hub import constants

    for kept in (Hub.files, Hub.stored, Hub.refused):
        cast(dict[str, Any], kept).clear()
    Hub.created.clear()
    Hub.is_private = False
    with serving(Hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.setenv("NO_PROXY", "*")
        yield address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert train(small_config(folder, sample_every=0)) == 0
    return Run(folder / "runs" / "small")


@pytest.mark.parametrize("is_large", [True, False])
def test_transformers_loads_what_the_hub_got(
    is_large: bool, hub: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """By Git LFS, and through the library's upload in parts. Xet's own storage needs the Hub itself."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", is_large)
    Hub.files |= {"tokenizer.model": b"theirs", "sentencepiece.model": b"old", "notes.md": b"mine"}
    out = tmp_path / "exported"
    assert main(["export", str(run.path), str(out), "--push", "small", "--private"]) == 0
    said = capsys.readouterr()
    assert f"{out} is on the Hub: {hub}/me/small\n" in said.out and said.err == ""
    assert Hub.created == [{"name": "small", "organization": "me", "visibility": "private"}]
    exported = {file.name: file.read_bytes() for file in out.iterdir()}
    assert Hub.files == exported | {"tokenizer.model": b"theirs", "notes.md": b"mine"}
    assert bool(Hub.stored) == is_large

    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name in exported:
        (fetched / name).write_bytes(Hub.files[name])
    model, _ = run.load_model("best", torch.device("cpu"))
    ids = transformers.AutoTokenizer.from_pretrained(fetched)("the cat sat", return_tensors="pt").input_ids
    assert ids[0].tolist() == run.tokenizer().encode("the cat sat")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(fetched)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), rtol=1e-5, atol=1e-4)

    card = Hub.files["README.md"].decode()
    (program,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    assert "'me/small'" in program and "hf download me/small" in card
    exec(program.replace("'me/small'", repr(str(fetched))), {})
    assert capsys.readouterr().out.startswith("The")

    (out / "tokenizer.json").unlink()  # as of a tokenizer that transformers cannot hold
    from minitx.interop.hub import push

    push(out, "me/small", is_private=True)
    assert "tokenizer.json" not in Hub.files and "config.json" in Hub.files


def test_the_card_tells_the_run(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert main(["export", str(run.path), str(out)]) == 0
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["minitx", "attention-heads"],
    }
    summary, about = run.read_json("summary.json"), run.read_json("data.json")
    for row in (
        f"validation loss | {summary['best_val_loss']:.4f} nats per token",
        f"bits per byte | {summary['val_bits_per_byte']:.4f}",
        f"parameters | {summary['parameters']:,}",
        "step | 12 of 12",
        f"tokens {about['val_tokens']:,}; held out (0.1 of the text",
        "source | text.txt",
        f"torch {torch.__version__}",
        "layers × heads | 2 × 2",
        "unclassified | 0.0 0.1 1.0 1.1",
    ):
        assert row in card, row
    assert str(run.path.parent) not in card  # no folder of whoever exports it


def test_the_command_in_the_card_trains_the_same_run(run: Run) -> None:
    config = run.config()
    data = dataclasses.replace(config.data, source="of/others", val_split="test")
    changed = dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, n_kv_head=1))
    run.save_config(changed)
    try:
        model = Transformer(changed.model, run.tokenizer().vocab_size)
        card = readme(run, model, "step-000006", "me/small", has_tokenizer=False)
    finally:
        run.save_config(config)
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["of/others"]
    assert "step | 6 of 12" in card and "; split test |" in card and "multi-query" in card
    assert "cannot hold its tokenizer" in card and "AutoTokenizer.from_pretrained" not in card
    (command,) = re.findall("```sh\nminitx train (.*?)```", card, re.DOTALL)
    parser = new_parser("", Config)
    parsed = instantiate(parser, parse(parser, Config, shlex.split(command.replace("\\\n", ""))), Config)
    assert (parsed.data, parsed.model, parsed.tokenizer) == (data, changed.model, config.tokenizer)
    usual = {name: getattr(TrainConfig(), name) for name in ("checkpoint_every", "sample_every", "sample_tokens")}
    assert parsed.train == dataclasses.replace(changed.train, **usual)


def test_the_card_names_the_heads_that_were_known_by_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {name: [[0.1, 0.1], [0.1, 0.1]] for name in ROLES}
    chance = dict.fromkeys(ROLES, 0.1)
    early = {"step": 6, "scores": {**scores, "previous_token": [[0.1, 0.9], [0.1, 0.1]]}, "chance": chance}
    late = {"step": 12, "scores": {**scores, "induction": [[0.9, 0.9], [0.9, None]]}, "chance": chance}
    monkeypatch.setattr(run, "heads", lambda: [early, late])
    assert head_rows(run, 5) == []
    unclassified = ("unclassified", "0.0 1.0 1.1")
    assert head_rows(run, 11) == [("scored at step", "6"), ("previous token", "0.1"), unclassified]
    assert head_rows(run, 12) == [("scored at step", "12"), ("induction", "0.0 0.1 1.0"), ("unclassified", "1.1")]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"HF_TOKEN": ""}, "log in with `hf auth login`"),
        ({"HF_TOKEN": "wrong"}, "does not accept your token"),
        ({"name": "me/a/b"}, "is no name of a model on the Hub"),
        ({"endpoint": "gone"}, "The Hub cannot be reached"),
        ({"refused": "create", "status": 403}, "You may not write to me/small on the Hub"),
        ({"refused": "commit", "status": 400}, "The Hub did not take me/small (not today)"),
        ({"refused": "large", "status": 403}, "You may not write to me/small on the Hub"),
        ({"is_public": True}, "is on the Hub already, for all to see"),
        ({"format": "gguf"}, "leave --format gguf out"),
    ],
)
def test_what_fails_is_one_sentence(
    wrong: dict[str, Any],
    sentence: str,
    hub: str,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "HF_TOKEN" in wrong:
        monkeypatch.setenv("HF_TOKEN", wrong["HF_TOKEN"])
    if "endpoint" in wrong:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", free_endpoint())
    if "refused" in wrong:
        Hub.refused[wrong["refused"]] = wrong["status"]
    if "is_public" in wrong:
        Hub.created.append({})
    out, options = tmp_path / "exported", ["--push", wrong.get("name", "me/small"), "--private"]
    assert main(["export", str(run.path), str(out), *options, "--format", wrong.get("format", "transformers")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert Hub.files == {}
    is_early = not {"refused", "is_public"} & {*wrong}
    assert [*tmp_path.iterdir()] == ([] if is_early else [out])  # the folder is whole before anything is sent
    assert is_early or (out / "minitx.json").exists()


def test_an_edited_card_is_kept(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "exported"
    assert main(["export", str(run.path), str(out)]) == main(["export", str(run.path), str(out)]) == 0
    (out / "README.md").write_text("mine")
    assert main(["export", str(run.path), str(out)]) == 2
    assert "README.md is not as export wrote it" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "mine"
    assert main(["import", str(out), str(tmp_path / "run")]) == 0  # its checksum is of no weight
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "again")]) == 0
    card = (tmp_path / "again" / "README.md").read_text()
    assert "imported into minitx from a model of others" in card and "## Train" not in card and "## Data" not in card
