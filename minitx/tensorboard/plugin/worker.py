"""The process that runs models for the Attention tab, so that torch stays out of TensorBoard.

It starts with the first request, stays warm, and answers one request at a time: see `minitx.tensorboard.text_process`.
It is killed when an answer takes too long, ends after ten idle minutes, and ends with TensorBoard, which closes its
input. It imports installed packages and this minitx, never a module from the current folder, the log folder or
PYTHONPATH, which others may write to.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from werkzeug.exceptions import BadRequest, ServiceUnavailable

from minitx.tensorboard.plugin.frames import ANSWER, receive, send

MAX_SECONDS, IDLE_SECONDS, MAX_ANSWER_BYTES = 90.0, 600.0, 2**28
HOME = Path(__file__).parents[3]
PROCESS = (
    f"import sys; sys.path.insert(0, {str(HOME)!r}); import minitx; del sys.path[0]; "  # this minitx, and no neighbour
    "import runpy; runpy.run_module('minitx.tensorboard.text_process', run_name='__main__')"
)
FAILED, ENDED = "The model could not be run.", "The model's process ended: try again."


class Worker:
    """A process that answers requests; several threads may ask."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._busy = Lock()
        self._idle = Timer(IDLE_SECONDS, self._end_if_idle)

    def ask(self, request: dict[str, Any]) -> bytes:
        """The answer to a request; raises ServiceUnavailable while another is answered, and BadRequest."""
        if not self._busy.acquire(blocking=False):
            raise ServiceUnavailable("Another text is being run: try again in a moment.")
        try:
            self._idle.cancel()
            return self._ask(request)
        finally:
            self._idle = daemon(IDLE_SECONDS, self._end_if_idle)
            self._busy.release()

    def _ask(self, request: dict[str, Any]) -> bytes:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        start, limit = time.monotonic(), MAX_SECONDS
        watchdog = daemon(limit, process.kill)
        try:
            send(process.stdin, json.dumps(request).encode())
            answer = receive(process.stdout, MAX_ANSWER_BYTES)
        except OSError:  # the process died
            answer = None
        finally:
            watchdog.cancel()
        if not answer:
            self.end()
            is_late = time.monotonic() - start >= limit
            if is_late:
                raise BadRequest(f"The model took longer than {limit:g} seconds: try a shorter text.")
            raise BadRequest(ENDED if answer is None else FAILED)
        if answer[:1] != ANSWER:
            raise BadRequest(answer[1:].decode("utf-8", "replace"))
        return answer[1:]

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, started where there is none or where it has ended."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.end()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-E", "-c", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
            env={**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C is for TensorBoard, which then closes the input
        )
        return self.process

    def _end_if_idle(self) -> None:
        if self._busy.acquire(blocking=False):
            self.end()
            self._busy.release()

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self.process = None


def daemon(seconds: float, act: Any) -> Timer:
    """A started timer that does not keep TensorBoard alive."""
    timer = Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
