"""`minitx heads RUN`: what each attention head does and how much it matters, as a table, JSON and a picture, or as one
page that shows what it attends to."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.system.errors import UserError, require
from minitx.system.figures import save_picture
from minitx.system.files import check_page_name, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minitx.data.token_files import Tokens
    from minitx.heads.measure import HeadMeasurements
    from minitx.model import Transformer
    from minitx.run.folder import Run
    from minitx.system.runtime import Runtime

NOT_WITH_PAGE = ("json", "picture", "probes", "history", "output_projection")
"""Options that ask for something else than the page of --html."""


def main(arguments: Sequence[str], prog: str) -> int:
    """Describe the heads as the command line says; the exit status."""
    options = parse(arguments, prog)
    text = read_text(options.text, options.text_file)

    from minitx.heads.measure import measure_probes
    from minitx.heads.table import as_text, probes_as_text
    from minitx.run.folder import Run
    from minitx.run.logs import HEADS_FILE
    from minitx.run.text import text_tokens, validation_tokens
    from minitx.system.runtime import choose_runtime

    run = Run.find(options.run)
    if options.history is not None:
        lines = run.metrics(HEADS_FILE)
        require(bool(lines), f"{run.path} has no {HEADS_FILE}: train with log.heads_every above 0.")
        from minitx.heads.figures import history_figure

        save(history_figure(lines, f"{run.path.name}: the heads while it learns"), options.history)
        return 0
    runtime = choose_runtime(options.device, options.dtype, False, "auto")
    model, checkpoint = run.load_model(options.checkpoint, runtime.device)
    if options.html is not None:
        write_page(options.html, run, checkpoint, model, text)
        return 0
    tokens = validation_tokens(run) if text is None else text_tokens(run, text)
    about = {"run": str(run.path), "checkpoint": checkpoint, "text": "validation" if text is None else "given"}
    if options.probes:
        probes = run.config().log.read_probes()
        require(any(probe.links for probe in probes), f"The probes of {run.path} have no links: see log.probes.")
        measured_probes = measure_probes(model, run.tokenizer(), probes, tokens)
        content, table = {"probes": [probe.to_json() for probe in measured_probes]}, probes_as_text(measured_probes)
    else:
        measured = measure(run, model, tokens, options, runtime)
        content, table = measured.to_json(), as_text(measured)
    if options.json:
        print(json.dumps(about | content, indent=2, ensure_ascii=False))
    else:
        print(f"{about['run']}, {checkpoint}, on its {about['text']} text\n\n{table}")
    if options.picture is not None and not options.probes:
        from minitx.heads.figures import heads_figure

        title = f"{run.path.name}, {checkpoint}: the heads on {len(tokens):,} tokens of {about['text']} text"
        save(heads_figure(measured, title), options.picture)
    return 0


def parse(arguments: Sequence[str], prog: str) -> Any:
    """The options of the command line; raises UserError for those that cannot be or exclude each other."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("run", metavar="RUN", nargs="?", help="Run folder; by default the newest one.")
    parser.add_argument("--text", type=str, help="Text to measure on; by default the run's whole validation split.")
    parser.add_argument("--text_file", type=str, metavar="FILE", help="File that holds the text, in UTF-8.")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, last, or a step of the run.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    parser.add_argument("--picture", type=str, metavar="FILE", help="Also draw layers × heads, a panel per figure.")
    parser.add_argument("--probes", action="store_true", help="Show the run's labelled links instead of the table.")
    parser.add_argument("--history", type=str, metavar="FILE", help="Draw the scores over the run's steps instead.")
    parser.add_argument(
        "--html",
        type=str,
        metavar="FILE",
        help="Write one self-contained page instead, TensorBoard's Attention tab of the text or of the run's probes.",
    )
    parser.add_argument(
        "--output_projection", action="store_true", help="Also ablate each layer's output projection (identity)."
    )
    parser.add_argument("--no_ablation", action="store_true", help="Leave out ablation, which takes the longest.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps.")
    parser.add_argument(
        "--dtype",
        type=Literal["auto", "float32", "bfloat16"],
        default="auto",
        help="Precision that the table's losses are computed in; auto takes the quicker one.",
    )
    options = parse_plain(parser, arguments)
    require(options.text is None or options.text_file is None, "Both --text and --text_file are given: leave one out.")
    for name in (options.picture, options.history):
        require(
            name is None or Path(name).suffix.lower() in (".png", ".svg", ".pdf"),
            f"{name} is no picture: end its name with .png, .svg or .pdf.",
        )
    if options.html is not None:
        check_page_name(options.html)
        others = [name for name in NOT_WITH_PAGE if getattr(options, name)]
        require(not others, f"Both --html and --{', --'.join(others)} are given: leave one out.")
    return options


def read_text(text: str | None, file: str | None) -> str | None:
    """The text of the command line or of a file; None where neither is given. Raises UserError."""
    if file is not None:
        try:
            text = Path(file).read_bytes().decode("utf-8")
        except OSError as error:
            raise UserError(f"--text_file {file} cannot be read ({error.strerror}): name a text file.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"--text_file {file} is not UTF-8 (byte {error.start}): convert it to UTF-8.") from error
    require(text != "", "The text is empty: give some, or leave it out to take the run's validation split.")
    return text


def measure(run: Run, model: Transformer, tokens: Tokens, options: Any, runtime: Runtime) -> HeadMeasurements:
    """Measure the heads under a progress bar; raises UserError for a pruned run."""
    from tqdm import tqdm

    from minitx.heads.measure import measure_heads

    require(
        model.config.kept_heads is None,
        f"{run.path} is a pruned run, and only whole models are measured here: name the run that it was pruned from.",
    )
    ablation, projection = not options.no_ablation, options.output_projection
    count = (1 + ablation + projection) * (len(tokens) - 1)
    with tqdm(total=count, unit="token", disable=not sys.stderr.isatty(), leave=False) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        return measure_heads(
            model, tokens, ablation=ablation, projection=projection, advance=advance, precision=runtime.autocast
        )


def save(figure: Figure, name: str) -> None:
    """Save a figure as the picture `name`; raises UserError where it cannot be written."""
    save_picture(figure, name)
    print(f"picture in {name}", file=sys.stderr)


def write_page(name: str, run: Run, checkpoint: str, model: Transformer, text: str | None) -> None:
    """Write the page of what every head attends to in `text` and scores on it; raises UserError where that cannot be.

    Without a text it shows the run's probes, with scores on validation text, as while training.
    """
    from minitx.heads.view import text_snapshot, view_probes
    from minitx.run.text import validation_tokens
    from minitx.system.files import step_of
    from minitx.tensorboard.plugin.page import write_html

    step, tokenizer, longest = step_of(checkpoint), run.tokenizer(), model.config.context_length
    if text is None:
        probes = run.config().log.read_probes()
        require(bool(probes), f"{run.path} has no probes: give a text with --text or --text_file.")
        snapshot = view_probes(model, tokenizer, probes, validation_tokens(run)).snapshot(step)
    else:
        tokens = tokenizer.encode(text)
        require(
            len(tokens) <= longest,
            f"The text has {len(tokens)} tokens, but this model sees {longest} at once: give a shorter one.",
        )
        snapshot = text_snapshot(model, tokenizer, [(text, tokens)], step)
    with writing(name):
        write_html(Path(name), [snapshot], title=run.path.name)
    print(f"page in {name}", file=sys.stderr)
