"""Models from a small local server that speaks the Hub's protocol for reading."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from minitx.__main__ import main
from minitx.heads import snapshots
from minitx.run.folder import Run
from minitx.training.session import train
from tests.hub_server import Answering, free_endpoint, serving
from tests.small import small_config

constants = pytest.importorskip("huggingface_hub.constants")


class Hub(Answering):
    """One model, me/small, whose branches have files by name."""

    branches: ClassVar[dict[str, dict[str, bytes]]] = {}

    def do_GET(self) -> None:  # noqa: N802  the base class's name
        path = self.path.split("?")[0]
        commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in self.branches}
        of_commit = {commit: self.branches[name] for name, commit in commits.items()} | self.branches
        if path == "/api/models/me/small/refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit} for n, commit in commits.items()]
            self.answer_json({"branches": refs, "converts": [], "tags": []})
        elif match := re.fullmatch(r"/api/models/me/small(?:/revision/([^/]+))?", path):
            name = match[1] or "main"
            files = [{"rfilename": file} for file in of_commit[name]]
            commit = commits.get(name, name)
            self.answer_json({"id": "me/small", "modelId": "me/small", "sha": commit, "siblings": files})
        elif match := re.fullmatch(r"/api/models/me/small/tree/([^/]+)", path):
            held = of_commit[match[1]]
            self.answer_json(
                [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in held.items()
                ]
            )
        elif match := re.fullmatch(r"/me/small/resolve/([^/]+)/(.+)", path):
            body = of_commit[match[1]][match[2]]
            etag, commit = hashlib.sha256(body).hexdigest(), commits.get(match[1], match[1])
            self.answer(200, body, ETag=f'"{etag}"', X_Repo_Commit=commit, Content_Type="application/octet-stream")
        else:
            self.answer_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import hf_api

    with serving(Hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hf_api.api, "endpoint", address)
        monkeypatch.chdir(tmp_path)
        yield address


def exported(folder: Path, steps: int) -> dict[str, bytes]:
    """The files of a small trained model."""
    config = small_config(folder, steps=steps, sample_every=0)
    train(config)
    assert main(["export", config.out if steps == 2 else f"{config.out}-2", str(folder / f"model-{steps}")]) == 0
    return {file.name: file.read_bytes() for file in (folder / f"model-{steps}").iterdir()}


def test_a_model_and_a_series_of_branches_come_from_the_hub(endpoint: str, tmp_path: Path) -> None:
    first, second = exported(tmp_path, 2), exported(tmp_path, 4)
    Hub.branches = {"main": second, "step4": second, "step2": first, "notes": {}}
    assert main(["import", "me/small", str(tmp_path / "one"), "--context_length", "32"]) == 0
    assert main(["import", "me/small", str(tmp_path / "series"), "--series", "--context_length", "32"]) == 0
    run = Run(tmp_path / "series")
    assert run.checkpoint("last").step == 4 and snapshots.steps(run.path) == [2, 4]
    one, last = (Run(tmp_path / name).checkpoint("last").path / "model.safetensors" for name in ("one", "series"))
    assert one.read_bytes() == last.read_bytes()


def test_what_the_hub_does_not_give_is_one_sentence(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "me/other", str(tmp_path / "run")]) == 2
    assert "me/other is no folder here, and the Hub does not give it" in capfd.readouterr().err
    Hub.branches = {"main": {}}
    assert main(["import", "me/small", str(tmp_path / "run"), "--series"]) == 2
    assert "me/small holds no series: its branches must be called step500" in capfd.readouterr().err
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", free_endpoint())
    monkeypatch.setattr(constants, "ENDPOINT", free_endpoint())
    assert main(["import", "me/small", str(tmp_path / "run")]) == 2
    assert "check the network" in capfd.readouterr().err
