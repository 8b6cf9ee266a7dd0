"""The server of the Attention tab: routes that answer with JSON, a snapshot or a page; to errors with {"error": …}."""

import re
from collections.abc import Callable
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, NotFound

from minitx.heads import snapshots
from minitx.heads.examples_file import head_examples
from minitx.system.errors import UserError
from minitx.system.fields import Fields, parse_json
from minitx.tensorboard.plugin.attention import attention, span
from minitx.tensorboard.plugin.own_text import OwnText
from minitx.tensorboard.plugin.page import POLICY, STATIC, page, style
from minitx.tensorboard.plugin.questions import checked
from minitx.tensorboard.plugin.run_page import run_page
from minitx.tensorboard.plugin.store import Store

MAX_HEADS_ASKED, MAX_REQUEST_BYTES = 256, 65536
UNICODE = r"[^\ud800-\udfff]*"  # a text without halves of surrogate pairs


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
        guarded = {
            "/runs": self._runs,
            "/run": self._run,
            "/scores": self._scores,
            "/attention": self._attention,
            "/snapshot": self._snapshot,
            "/examples": self._examples,
            "/page": self._page,
        }
        return {
            "/static/*": answering(self._static),
            **{route: answering(self._guarded(view)) for route, view in guarded.items()},
            "/own_text": answering(self._own_text, method="POST"),
            "/ask": answering(self._ask, method="POST"),
        }

    def _guarded(self, view: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """`view`, but only under an address that `OwnText.is_foreign` does not refuse."""

        def guarded(request: Request) -> Response:
            if self.own_text.is_foreign(request):
                raise Forbidden(
                    f"This TensorBoard listens on localhost only, but it was asked as {request.host!r:.100}: open it "
                    "as localhost, or start it with --attention_own_text."
                )
            return view(request)

        return guarded

    def _static(self, request: Request) -> Response:
        file = STATIC / request.path.partition("/static/")[2]
        if not file.is_file() or file not in STATIC.rglob("*"):
            raise NotFound("There is no such file.")
        if file.name == "style.css":
            return http_util.Respond(request, style().encode(), "text/css")
        return http_util.Respond(request, file.read_bytes(), "text/css" if file.suffix == ".css" else "text/javascript")

    def _runs(self, request: Request) -> Response:
        note = "" if self.store.root else "Start TensorBoard with --logdir FOLDER: this tab cannot read --logdir_spec."
        refusal = self.own_text.refusal(request)
        answer = {"runs": self.store.names(), "newest": self.store.newest(), "own_text": refusal, "note": note}
        return reply(request, answer)

    def _run(self, request: Request) -> Response:
        return reply(request, self.store.describe(text(request, "run")))

    def _scores(self, request: Request) -> Response:
        run, name, after = text(request, "run"), text(request, "name"), number(request, "after", "-1")
        probe = number(request, "probe") if "probe" in request.args else None
        return reply(request, self.store.scores(run, name, after, probe))

    def _attention(self, request: Request) -> Response:
        run, probe, after = text(request, "run"), number(request, "probe", "0"), number(request, "after", "-1")
        query, key = text(request, "query"), text(request, "key", "")
        spans = span(query, "query"), span(key, "key") if key else None
        is_of_words = text(request, "units", "tokens") == "words"
        return reply(request, attention(self.store, run, probe, *spans, after, is_of_words=is_of_words))

    def _snapshot(self, request: Request) -> Response:
        heads = [whole(head, "heads") for head in request.args.get("heads", "").split(",") if head]
        if len(heads) > MAX_HEADS_ASKED:
            raise BadRequest(f"heads names {len(heads)} heads: ask for at most {MAX_HEADS_ASKED} at once.")
        with self.store.open(text(request, "run"), number(request, "step")) as (file, header):
            return reply(request, snapshots.extract(file, header, number(request, "probe", "0"), heads))

    def _examples(self, request: Request) -> Response:
        examples = self.store.examples(text(request, "run"), number(request, "step"))
        return reply(request, head_examples(examples, number(request, "head")))

    def _page(self, request: Request) -> Response:
        """One probe of a run at all steps, or at as many as fit, as a self-contained HTML file."""
        run, probe, view = text(request, "run"), number(request, "probe", "0"), request.args.get("view", "")[:2000]
        shown_step = number(request, "step") if "step" in request.args else None
        return as_page(run_page(self.store, run, probe, shown_step, view))

    def _own_text(self, request: Request) -> Response:
        """A snapshot of a text, of the weights kept nearest to the step."""
        values = self._own_request(request)
        run, step, own_text = own_fields(values)
        view = values.text("view") if values.has("view") else ""
        kept = self._kept(run)
        content = self.own_text.run(self.store.folder(run), min(kept, key=lambda other: abs(other - step)), own_text)
        if values.content.get("page"):
            return as_page(page([content], title=run, view=view[:2000]))
        return reply(request, content)

    def _ask(self, request: Request) -> Response:
        """The answer to a question about a text and the weights of a step; see `questions`."""
        values = self._own_request(request)
        run, step, own_text = own_fields(values)
        question, fields = checked(values)
        if step not in self._kept(run):
            raise NotFound(f"The run {run!r:.200} keeps no weights of step {step}.")
        answer = self.own_text.run(self.store.folder(run), step, own_text, question, **fields)
        return http_util.Respond(request, answer, "application/json")

    def _own_request(self, request: Request) -> Fields:
        """The fields of a request to run a model; raises BadRequest where the visitor may not, or where it is large."""
        refusal = self.own_text.refusal(request)
        if refusal or request.headers.get("X-Minitx") != "1":
            raise BadRequest(refusal or "This route is for the Attention tab only.")
        request.max_content_length = MAX_REQUEST_BYTES  # for a request that does not tell its length
        if (request.content_length or 0) > MAX_REQUEST_BYTES:
            raise BadRequest("The text is too long.")
        return Fields(parse_json(request.get_data(cache=False), "The request"), "The request")

    def _kept(self, run: str) -> list[int]:
        """The steps whose weights a run keeps; raises NotFound if there are none."""
        kept = self.store.checkpoints(run)
        if not kept:
            raise NotFound(f"The run {run!r:.200} keeps no checkpoint yet, so no text can be run through it.")
        return kept


def own_fields(values: Fields) -> tuple[str, int, str]:
    """The run, the step and the text that a request names."""
    return values.text("run"), values.whole("step"), values.text("text", UNICODE, "a text in Unicode")


def answering(view: Callable[[Request], Response], method: str = "GET") -> Callable[..., Any]:
    """A WSGI application of `view` that turns errors into answers."""

    @Request.application
    def app(request: Request) -> Response:
        try:
            if request.method != method:
                raise BadRequest(f"This route takes {method} only.")
            response = view(request)
        except HTTPException as error:
            response = reply(request, {"error": error.description}, error.code or 500)
        except UserError as error:
            response = reply(request, {"error": str(error)}, 422)
        except (OSError, ValueError) as error:  # a folder that vanished, a name that no file can have
            reason = getattr(error, "strerror", None) or error
            response = reply(request, {"error": f"The snapshot cannot be read ({reason})."}, 404)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def reply(request: Request, content: Any, code: int = 200) -> Response:
    """Bytes as they are, anything else as JSON."""
    kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
    return http_util.Respond(request, content, kind, code=code)


def as_page(body: str) -> Response:
    """An HTML file for the browser to save."""
    headers = {"Content-Disposition": "attachment; filename=attention.html", "Content-Security-Policy": POLICY}
    return Response(body, mimetype="text/html", headers=headers)


def text(request: Request, name: str, default: str | None = None) -> str:
    """A parameter of the request, or `default`; raises BadRequest if both are missing."""
    value = request.args.get(name, default)
    if value is None:
        raise BadRequest(f"{name} is missing.")
    return value


def number(request: Request, name: str, default: str | None = None) -> int:
    """As `text`, for a parameter that is a whole number."""
    return whole(text(request, name, default), name)


def whole(value: str, name: str) -> int:
    """`value` as a whole number of at most 12 digits."""
    if not re.fullmatch("-?[0-9]{1,12}", value):
        raise BadRequest(f"{name} is {value!r:.40}, but it must be a whole number.")
    return int(value)
