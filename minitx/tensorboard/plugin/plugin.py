"""What the server does for the Attention tab: a handful of routes that hand out runs, steps, scores and snapshots.

Every answer is JSON or a snapshot (minitx.heads.snapshots); what cannot be had is answered by {"error": one sentence}.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

from minitx.heads import snapshots
from minitx.heads.snapshots import SnapshotError
from minitx.tensorboard.plugin.own_text import BusyError, OwnText, OwnTextError
from minitx.tensorboard.plugin.page import POLICY, page
from minitx.tensorboard.plugin.store import MissingError, Store

STATIC = Path(__file__).parent / "static"
MAX_HEADS_ASKED, MAX_REQUEST_BYTES = 256, 65536
MAX_PAGE_BYTES = 8_000_000
"""Snapshots that go into one self-contained HTML file; of more, every second, third … is taken."""


class RequestError(Exception):
    """The request makes no sense. The message is one sentence."""


class AttentionPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard ships no types
    """TensorBoard's plugin "attention"."""

    plugin_name = "attention"

    def __init__(self, context: Any) -> None:
        self.store = Store(context.logdir or "")
        self.own_text = OwnText(context.flags)

    def is_active(self) -> bool:
        """Whether the tab is shown: some run has snapshots."""
        return bool(self.store.names())

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's module and name."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Attention")

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """Route → WSGI application."""
        return {
            "/static/*": self._static,
            "/runs": answering(self._runs),
            "/run": answering(self._run),
            "/scores": answering(self._scores),
            "/snapshot": answering(self._snapshot),
            "/page": answering(self._page),
            "/own_text": answering(self._own_text, method="POST"),
        }

    def _static(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        name = request.path.rpartition("/static/")[2]
        there = {file.name: file for file in STATIC.iterdir() if file.suffix in (".js", ".css")}
        if name not in there:
            response = http_util.Respond(request, {"error": "There is no such file."}, "application/json", code=404)
        else:
            kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
            response = http_util.Respond(request, there[name].read_bytes(), kind)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)

    def _runs(self, request: Request) -> Response:
        names = self.store.names()
        note = (
            "" if self.store.root else "Start TensorBoard with --logdir FOLDER: of --logdir_spec this tab sees nothing."
        )
        return reply(request, {"runs": names, "own_text": self.own_text.refusal(request), "note": note})

    def _run(self, request: Request) -> Response:
        return reply(request, self.store.describe(text(request, "run")))

    def _scores(self, request: Request) -> Response:
        after = number(request, "after", "-1")
        return reply(request, self.store.scores(text(request, "run"), text(request, "name"), after))

    def _snapshot(self, request: Request) -> Response:
        heads = [whole(head, "heads") for head in request.args.get("heads", "").split(",") if head]
        if len(heads) > MAX_HEADS_ASKED:
            raise RequestError(
                f"heads names {len(heads)} heads, but at most {MAX_HEADS_ASKED} can be asked for at once."
            )
        file = self.store.file(text(request, "run"), number(request, "step"))
        with file.open("rb") as opened:
            content = snapshots.extract(opened, number(request, "probe", "0"), heads)
        return reply(request, content)

    def _page(self, request: Request) -> Response:
        """One probe of a run at all steps, or as many as fit, as a self-contained HTML file."""
        run, probe = text(request, "run"), number(request, "probe", "0")
        steps = snapshots.steps(self.store.folder(run))
        chosen = number(request, "step", str(steps[-1] if steps else 0))
        size = self.store.file(run, chosen).stat().st_size
        stride = max(1, -(-len(steps) * size // MAX_PAGE_BYTES))
        contents = []
        for step in sorted({*steps[::-1][::stride], chosen}):
            with suppress(SnapshotError, MissingError), self.store.file(run, step).open("rb") as opened:
                header = snapshots.read_header(opened)
                contents.append(snapshots.extract(opened, probe, range(header["layers"] * header["heads"])))
        if not contents:
            raise MissingError(f"The run {run!r:.200} has no snapshot of probe {probe} that can be read.")
        title = run if run != "." or self.store.root is None else self.store.root.name
        body = page(contents, title=title, view=request.args.get("view", "")[:2000])
        return as_page(body)

    def _own_text(self, request: Request) -> Response:
        refusal = self.own_text.refusal(request)
        if refusal or request.headers.get("X-Minitx") != "1":
            raise RequestError(refusal or "This route is for the Attention tab only.")
        if (request.content_length or 0) > MAX_REQUEST_BYTES:
            raise RequestError("The text is too long.")
        try:
            asked = json.loads(request.get_data(cache=False)[: MAX_REQUEST_BYTES + 1])
            run, step, words = str(asked["run"]), int(asked["step"]), str(asked["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError("The request is not an object with run, step and text.") from error
        folder, kept = self.store.folder(run), self.store.checkpoints(run)
        if not kept:
            raise MissingError(f"The run {run!r:.200} keeps no checkpoint yet, so no text can be run through it.")
        nearest = min(kept, key=lambda other: abs(other - step))
        content = self.own_text.run(folder, nearest, words)
        if asked.get("page"):
            return as_page(page([content], title=run, view=str(asked.get("view", ""))[:2000]))
        return reply(request, content)


def answering(view: Callable[[Request], Response], method: str = "GET") -> Callable[..., Any]:
    """A WSGI application of `view` that answers what goes wrong with a sentence."""

    def app(environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        try:
            if request.method != method:
                raise RequestError(f"This route takes {method} only.")
            response = view(request)
        except MissingError as error:
            response = reply(request, {"error": str(error)}, 404)
        except (RequestError, OwnTextError) as error:
            response = reply(request, {"error": str(error)}, 400)
        except SnapshotError as error:
            response = reply(request, {"error": str(error)}, 422)
        except BusyError as error:
            response = reply(request, {"error": str(error)}, 503)
        except (OSError, ValueError) as error:  # a folder that vanished, a name that no file can have
            reason = getattr(error, "strerror", None) or error
            response = reply(request, {"error": f"The snapshot cannot be read ({reason})."}, 404)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)

    return app


def reply(request: Request, content: Any, code: int = 200) -> Response:
    """JSON, or bytes as they are."""
    kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
    return http_util.Respond(request, content, kind, code=code)


def as_page(body: str) -> Response:
    """An HTML file to be saved."""
    headers = {"Content-Disposition": "attachment; filename=attention.html", "Content-Security-Policy": POLICY}
    return Response(body, mimetype="text/html", headers=headers)


def text(request: Request, name: str) -> str:
    """A parameter that has to be there."""
    value = request.args.get(name)
    if value is None:
        raise RequestError(f"{name} is missing.")
    return value


def number(request: Request, name: str, default: str | None = None) -> int:
    """A whole number."""
    return whole(request.args.get(name, default) if default is not None else text(request, name), name)


def whole(value: str | None, name: str) -> int:
    """`value` as a whole number of at most 12 digits."""
    digits = (value or "").removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise RequestError(f"{name} is {value!r:.40}, but it must be a whole number.")
    return int(value or "")
