"""Runs a user's own text through a checkpoint, in another process, so that torch stays out of TensorBoard.

Text and time are limited, and only one text is run at a time. The process imports installed packages and this minitx,
never a module from the current folder, the log folder or PYTHONPATH, which others may write to.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from werkzeug import Request
from werkzeug.exceptions import BadRequest, ServiceUnavailable

MAX_CHARACTERS, MAX_SECONDS = 4000, 90
HOME = Path(__file__).parents[3]
PROCESS = (
    f"import sys; sys.path.insert(0, {str(HOME)!r}); import minitx; del sys.path[0]; "  # this minitx, and no neighbour
    "import runpy; runpy.run_module('minitx.tensorboard.text_process', run_name='__main__')"
)
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class OwnText:
    """Decides who may run a text, and runs it."""

    def __init__(self, flags: Any) -> None:
        self.allowed = bool(getattr(flags, "attention_own_text", False))
        self.local = not getattr(flags, "bind_all", False) and (getattr(flags, "host", None) or "localhost") in LOCAL
        self._busy = Lock()

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

    def run(self, run: Path, step: int, text: str) -> bytes:
        """A snapshot of `text` through the checkpoint of `step`; raises BadRequest and ServiceUnavailable."""
        if not text.strip():
            raise BadRequest("The text is empty: type a sentence.")
        if len(text) > MAX_CHARACTERS:
            raise BadRequest(f"The text has {len(text)} characters, but at most {MAX_CHARACTERS} are run.")
        if not self._busy.acquire(blocking=False):
            raise ServiceUnavailable("Another text is being run: try again in a moment.")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-E", "-c", PROCESS],
                input=json.dumps({"run": str(run), "step": step, "text": text}).encode(),
                capture_output=True,
                timeout=MAX_SECONDS,
                check=False,
                cwd=Path(__file__).parent,
                env={**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            )
        except subprocess.TimeoutExpired as error:
            raise BadRequest(f"The model took longer than {MAX_SECONDS} seconds: try a shorter text.") from error
        finally:
            self._busy.release()
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            reason = last.removeprefix("error: ") if last.startswith("error: ") else "The model could not be run."
            raise BadRequest(reason.replace(f"{run}{os.sep}", "").replace(str(run), "the run"))
        return done.stdout
