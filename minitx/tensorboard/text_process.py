"""Answers questions about texts and models: the process behind the Attention tab, which stays warm between them.

Standard input: messages (see `frames`) of JSON with run (a folder), step, text, question and the fields of the
question. Standard output: a message for each, with a snapshot for the question "snapshot", else with JSON. The process
ends with its input.
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from minitx.data.tokenizer import Tokenizer
from minitx.heads import blocks, what_if
from minitx.heads.view import text_snapshot
from minitx.heads.writes import writes
from minitx.model import Transformer
from minitx.run import checkpoints, weights
from minitx.run.folder import Run
from minitx.system.errors import require
from minitx.system.exits import explain, run_command
from minitx.system.files import step_name, without_nan
from minitx.system.memory import limit_memory, total_memory
from minitx.tensorboard.plugin.frames import ANSWER, ERROR, receive, send
from minitx.tensorboard.plugin.worker import FAILED

Question = Callable[[Transformer, Tokenizer, list[int], dict[str, Any]], dict[str, Any]]
"""A model, its tokenizer, the tokens of a text (at least one, at most a context length), the fields of the request."""
QUESTIONS: dict[str, Question] = {
    "without": what_if.without,
    "ranking": what_if.ranking,
    "writes": writes,
    "blocks": blocks.answer,
}
"""Their fields are checked by the function of the same name in `minitx.tensorboard.plugin.questions`."""
MAX_REQUEST_BYTES = 2**20
MAX_MODELS, MAX_MODEL_BYTES = 4, 2**30
A_PATH = re.compile(r"(?:^|[\s'\"(=:])(?:/|[A-Za-z]:[\\/])[^\s]")


class Models:
    """The models of the last few runs and steps, so that the next question about them finds them ready."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], tuple[Transformer, Tokenizer]] = {}

    def load(self, path: Path, step: int) -> tuple[Transformer, Tokenizer]:
        """The model of a step and its tokenizer; read again where a file has changed."""
        run = Run.find(str(path))
        files = (checkpoints.FOLDER + f"/{step_name(step)}/{checkpoints.MODEL_FILE}", "data.json", "config.yaml")
        key = (str(path), step, version(weights.path(path, step)), *(version(path / name) for name in files))
        found = self.kept.pop(key, None) or (run.load_model(str(step), torch.device("cpu"))[0], run.tokenizer())
        self.kept[key] = found  # the newest is last
        while len(self.kept) > MAX_MODELS or self.size() > MAX_MODEL_BYTES:
            del self.kept[next(iter(self.kept))]
        return found

    def size(self) -> int:
        """Bytes of the parameters of all models that are kept."""
        return sum(parameter.nbytes for model, _ in self.kept.values() for parameter in model.parameters())


def version(file: Path) -> tuple[int, ...]:
    """What changes with a file; empty where there is none."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def answer(models: Models, request: dict[str, Any]) -> bytes:
    """The answer to a request as bytes; raises UserError and whatever a fault of the program raises."""
    path, step, text, question = Path(request["run"]), request["step"], request["text"], request["question"]
    model, tokenizer = models.load(path, step)
    tokens = tokenizer.encode(text)
    require(bool(tokens), "The text has no token: type a sentence.")
    if question == "snapshot":
        return text_snapshot(model, tokenizer, [(text, tokens)], step)
    content = QUESTIONS[question](model, tokenizer, tokens[: model.config.context_length], request)
    return json.dumps(without_nan(content), allow_nan=False).encode()


def excuse(error: Exception, run: str) -> str:
    """Why there is no answer, in a sentence that names no path; a fault of the program is printed, for its author."""
    reason = explain(error)
    if reason is None:
        traceback.print_exception(error)
        return FAILED
    reason = reason.replace(f"{run}{os.sep}", "").replace(run, "the run")
    return FAILED if A_PATH.search(reason) else reason


def main() -> int:
    """Answer messages until the input ends; returns the exit status."""
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no message
    torch.set_num_threads(1)
    if memory := total_memory(torch.device("cpu")):
        limit_memory(memory // 2)
    models = Models()
    while message := receive(sys.stdin.buffer, MAX_REQUEST_BYTES):
        request = json.loads(message)
        try:
            content = ANSWER + answer(models, request)
        except Exception as error:
            content = ERROR + excuse(error, request["run"]).encode("utf-8", "replace")
        send(outgoing, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
