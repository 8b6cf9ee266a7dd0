"""Decides who may run a model on a text of their own, and what of: texts are limited, and one is run at a time."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from werkzeug import Request
from werkzeug.exceptions import BadRequest

from minitx.tensorboard.plugin.worker import Worker

MAX_CHARACTERS = 4000
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class OwnText:
    """Decides who may run a text, and has the worker run it."""

    def __init__(self, flags: Any) -> None:
        self.allowed = bool(getattr(flags, "attention_own_text", False))
        self.local = not getattr(flags, "bind_all", False) and (getattr(flags, "host", None) or "localhost") in LOCAL
        self.worker = Worker()

    def refusal(self, request: Request) -> str:
        """Why this visitor may not run own texts; empty if they may."""
        if self.allowed:
            return ""
        if not self.local:
            return "Own texts are run only if TensorBoard listens on localhost, or with --attention_own_text."
        if self.is_foreign(request):
            return "Own texts are run only under the address localhost, or with --attention_own_text."
        return ""

    def is_foreign(self, request: Request) -> bool:
        """Whether a request to localhost names another host: a foreign page gets here by DNS rebinding."""
        return self.local and not self.allowed and urlsplit(f"//{request.host}").hostname not in LOCAL

    def run(self, run: Path, step: int, text: str, question: str = "snapshot", **fields: Any) -> bytes:
        """The answer to `question` about `text` and the weights of `step`: JSON, or by default a snapshot.

        Raises BadRequest and ServiceUnavailable, with one sentence.
        """
        if not text.strip():
            raise BadRequest("The text is empty: type a sentence.")
        if len(text) > MAX_CHARACTERS:
            raise BadRequest(f"The text has {len(text)} characters, but at most {MAX_CHARACTERS} are run.")
        return self.worker.ask({**fields, "run": str(run), "step": step, "text": text, "question": question})
