"""The run folder: everything that passes from training to the other uses.

    runs/NAME/config.yaml, tokenizer.model or tokenizer.json, data.json, metrics.jsonl, heads.jsonl, summary.json,
    checkpoints/, attention/, weights/, events.out.tfevents.*

data.json describes the text, names the run by a random id, and keeps checksums of the tokenizer and of config.yaml.
Each checkpoint keeps checksums of itself and of the logs up to its step.
"""

import contextlib
import dataclasses
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from minitx.config import Config
from minitx.config.parsing import load_config
from minitx.data.json_tokenizer import open_tokenizer, tokenizer_file
from minitx.data.tokenizer import Tokenizer
from minitx.model import Transformer
from minitx.model_size import require_memory
from minitx.run import checkpoints, logs, weights
from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields
from minitx.system.program import command

SEAL = re.compile(rb"# sha256 of the lines below \(take this line out if you edit them\): ([0-9a-f]{64})\n")
"""First line of config.yaml in runs of older versions, which have no checksum of it in data.json."""


class Run:
    """One run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    @contextlib.contextmanager
    def building(out: str) -> Iterator["Run"]:
        """An empty run folder under a hidden name; at the end it becomes `out`, or `out`-2, `out`-3 … if that exists.

        Until then `run.path` ends with the name to come. After an exception, and after a kill at any moment, nothing
        of it is left but the hidden folder, which the next call removes. Raises UserError where it cannot be made.
        """
        path = free_name(out)
        hidden = files.draft_of(path)
        run = Run(hidden / path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.remove_drafts_of(Path(out))
            run.path.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"The run folder {out} cannot be made: {error.strerror}; set out to another place."
            ) from error
        try:
            yield run
            run.path = moved(run.path, out)
            if run.path != path:  # another process took the name meanwhile
                run.save_config(dataclasses.replace(run.config(), out=str(run.path)))
        finally:
            files.remove(hidden)

    @staticmethod
    def create(out: str, config: Config, tokenizer: Tokenizer, about_text: dict[str, Any]) -> "Run":
        """A new run in the folder `out`, or as `building` says; about_text: `Prepared.describe`."""
        with Run.building(out) as run:
            run.furnish(config, tokenizer, about_text)
        return run

    def furnish(self, config: Config, tokenizer: Tokenizer, about_text: dict[str, Any]) -> Config:
        """Write the tokenizer, data.json and config.yaml, all that resuming needs, into a run of `building`.

        Returns the configuration with the folder that the run will have.
        """
        tokenizer.save(self.path / tokenizer.FILE)
        about = {"tokenizer": tokenizer.digest, "end_of_document": tokenizer.end_of_document}
        self.write_json("data.json", {**about_text, **about, "id": secrets.token_hex(8)})
        config = dataclasses.replace(config, out=str(self.path.parent.parent / self.path.name))
        self.save_config(config)
        return config

    @staticmethod
    def find(path: str | None, root: str = "runs") -> "Run":
        """The run in the folder `path`; without a path, the run in `root` with the newest checkpoint."""
        if path is not None:
            folder = Path(path)
            require(
                folder.is_dir(), f"There is no run {path}: train one with '{command('train')}', or look in {root}/."
            )
            require((folder / "config.yaml").is_file(), f"{path} is not a run folder: it has no config.yaml.")
            return Run(folder)
        runs = [Run(config.parent) for config in Path(root).glob("*/config.yaml")]
        runs = [run for run in runs if checkpoints.names(run.path)]
        require(bool(runs), f"There is no trained run in {root}/ yet: train one with '{command('train')}'.")
        return max(runs, key=lambda run: (run.path / checkpoints.FOLDER).stat().st_mtime)

    def config(self) -> Config:
        """The configuration of the run; raises UserError where config.yaml is damaged."""
        self.check_config()
        return load_config(self.path / "config.yaml")

    def save_config(self, config: Config) -> None:
        """Write config.yaml, and its checksum into data.json.

        data.json comes first and keeps the checksum of the previous config.yaml, for a crash between the two.
        """
        file = self.path / "config.yaml"
        settings = config.to_dict()
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
        if yaml.safe_load(text) != settings:  # PyYAML turns U+0085 and the like into spaces
            text = yaml.safe_dump(settings, sort_keys=False, width=120)
        previous = files.checksum(file) if file.is_file() else None
        about = {**self.read_json("data.json"), "config": files.sha256(text.encode()), "previous_config": previous}
        self.write_json("data.json", about)
        files.write_atomically(file, text.encode())

    def check_config(self) -> None:
        """Raise UserError unless config.yaml is as minitx wrote it, or begins with the line "# edited"."""
        file = self.path / "config.yaml"
        content = files.read_file(file)
        if expected := self.about("config"):
            is_whole = files.sha256(content) in (expected, self.about("previous_config"))
        elif seal := SEAL.match(content):
            is_whole = files.sha256(content[seal.end() :]).encode() == seal[1]
        else:
            is_whole = not content.startswith(b"# sha256") and content.strip(b"# \n") != b""
        require(
            is_whole or content.splitlines()[:1] == [b"# edited"],
            f"{file} is damaged, or was edited: restore it; if you edited it yourself, make '# edited' its first line.",
        )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run; raises UserError where its file has changed."""
        file = tokenizer_file(self.path)
        content, expected = files.read_file(file), self.about("tokenizer")
        require(files.sha256(content) == expected, f"{file} has changed since the run began: restore it from a copy.")
        return open_tokenizer(content, file, self.fields("data.json"))

    def about(self, name: str) -> str | None:
        """What data.json says of `name`, such as the checksum of the tokenizer; None where it says nothing."""
        fields = self.fields("data.json")
        return fields.text(name) if fields.has(name) else None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run, with a checksum of its content; NaN and infinity become null."""
        files.write_atomically(self.path / name, files.json_bytes(files.without_nan(content)))

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the run; raises UserError where it is missing or damaged."""
        return files.read_json(self.path / name)

    def fields(self, name: str) -> Fields:
        """The content of a JSON file of the run, to be read field by field; raises as `read_json`."""
        return Fields(self.read_json(name), str(self.path / name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Remove half-written files, and let no other process train here; raises UserError if one already does."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"Another process is training in {self.path}: wait for it, or stop it first.") from error
        except OSError:  # a file system without locks, or one that is read-only, which the first write reports
            pass
        try:
            files.remove_drafts_of(self.path)
            inside = [self.path / name for name in (checkpoints.FOLDER, weights.FOLDER, "attention")]
            for folder in (self.path, *inside):
                if folder == self.path or not folder.is_symlink():  # which would lead out of the run
                    files.remove_drafts(folder)
            yield
        finally:
            if lock.is_locked:
                files.remove(Path(lock.lock_file))  # before it is released, so that no other process has just locked it
                lock.release()

    def append_metrics(self, line: dict[str, Any], name: str = logs.METRICS_FILE) -> None:
        """Append a line to metrics.jsonl, or to the file `name`; NaN and infinity become null."""
        logs.append_line(self.path / name, line)

    def metrics(self, name: str = logs.METRICS_FILE) -> list[dict[str, Any]]:
        """The readable lines of metrics.jsonl, or of the file `name`."""
        return [line for _, line in logs.read_lines(self.path / name) if line is not None]

    def heads(self) -> list[dict[str, Any]]:
        """The lines of heads.jsonl; see `logs.read_heads`."""
        newest = checkpoints.newest_state(self.path)
        return logs.read_heads(self.path, newest.logs.get(logs.HEADS_FILE) if newest else None)

    def checkpoint(self, name: str) -> checkpoints.Checkpoint:
        """The checkpoint last, best, or of a step such as 500; see `checkpoints.find`."""
        return checkpoints.find(self.path, name)

    def load_model(self, checkpoint: str, device: torch.device) -> tuple[Transformer, str]:
        """The model in evaluation mode, and the name of its checkpoint.

        checkpoint: as in `checkpoint`, or a step whose weights alone are kept.
        """
        number = checkpoint.removeprefix("step-")
        step = int(number) if number.isdecimal() else -1
        has_weights_alone = step in weights.steps(self.path) and step not in checkpoints.steps(self.path)
        chosen = None if has_weights_alone else self.checkpoint(checkpoint)
        config, tokenizer = self.config(), self.tokenizer()
        require_memory(config.model, tokenizer.vocab_size, device, training=False)
        model = Transformer(config.model, tokenizer.vocab_size)
        if chosen is None:
            weights.load_into(model, self.path, step, self.about("id") or "")
        else:
            chosen.load_weights(model)
        return model.to(device).eval(), files.step_name(step) if chosen is None else chosen.path.name


def free_name(out: str) -> Path:
    """The first of `out`, `out`-2, `out`-3 … that nothing has."""
    path, number = Path(out), 1
    while os.path.lexists(path):
        number += 1
        path = Path(f"{out}-{number}")
    return path


def moved(folder: Path, out: str) -> Path:
    """Move `folder` to `out`, or to `out`-2, `out`-3 … if that exists, and return where it is."""
    while True:
        path = free_name(out)
        try:
            folder.rename(path)
        except OSError:
            if not os.path.lexists(path):
                raise
        else:
            files.flush_to_disk(path.parent)
            return path
