"""`minitx heads RUN`: what each attention head does and how much it matters, as a table, JSON and a picture, or as one
page that shows what it attends to."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from minitx.commands.shared import exclude, read_text, run_parser, tell_spelled, write_page
from minitx.config.parsing import parse_plain
from minitx.system.errors import UserError, require
from minitx.system.figures import save_picture
from minitx.system.files import check_page_name, step_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minitx.data.token_files import Tokens
    from minitx.heads.kinds_report import KindMeasurements
    from minitx.heads.measure import HeadMeasurements
    from minitx.model import Transformer
    from minitx.run.folder import Run
    from minitx.system.runtime import Runtime


TALES = 1000
"""Tales that kinds are measured on by default."""
MEASURED = ("output_projection", "no_ablation")
"""Options of the table alone."""


def main(arguments: Sequence[str], prog: str) -> int:
    """Describe the heads as the command line says; the exit status."""
    options = parse(arguments, prog)

    from minitx.commands.head_examples import show_examples
    from minitx.heads.measure import measure_probes
    from minitx.heads.table import as_text, probes_as_text
    from minitx.run.folder import Run
    from minitx.run.logs import HEADS_FILE
    from minitx.run.text import text_tokens, validation_tokens
    from minitx.system.runtime import choose_runtime

    run, text = Run.find(options.run), options.text
    if options.history is not None:
        lines = run.heads()
        require(bool(lines), f"{run.path} has no lines in {HEADS_FILE} to draw: train with log.heads_every above 0.")
        from minitx.heads.figures import history_figure

        save(history_figure(lines, f"{run.path.name}: the heads while it learns"), options.history)
        return 0
    runtime = choose_runtime(options.device, options.dtype, False, "auto")
    if options.examples:
        return show_examples(run, options, runtime)
    model, checkpoint = run.load_model(options.checkpoint, runtime.device)
    if text is not None:
        tell_spelled(run.tokenizer(), text)
    if options.kinds:
        return show_kinds(run, model, checkpoint, options)
    if options.html is not None:
        from minitx.library.loaded_run import LoadedRun
        from minitx.library.looking import show

        loaded = LoadedRun(model, run.tokenizer(), step_of(checkpoint), run)
        write_page(options.html, show(loaded, text).html)
        return 0
    tokens = validation_tokens(run) if text is None else text_tokens(run, text)
    about = {"run": str(run.path), "checkpoint": checkpoint, "text": "validation" if text is None else "given"}
    if options.probes:
        from minitx.heads.places import run_probes

        probes = run_probes(run.config())
        require(any(probe.links for probe in probes), f"The probes of {run.path} have no links: see log.probes.")
        measured_probes = measure_probes(model, run.tokenizer(), probes, tokens)
        fault = (
            f"No link of {run.path}'s probes can be measured: its words are cut off by the context, or share a token."
        )
        require(bool(measured_probes), fault)
        content, table = {"probes": [probe.to_json() for probe in measured_probes]}, probes_as_text(measured_probes)
    else:
        measured = measure(run, model, tokens, options, runtime)
        learned_tales = text is None and run.config().data.source == "tales"
        is_short = options.no_ablation or options.json
        kinds = measure_tales(run, model, TALES) if learned_tales and not is_short else None
        content, table = measured.to_json(), as_text(measured, kinds)
    if options.json:
        print(json.dumps(about | content, indent=2, ensure_ascii=False))
    else:
        print(f"{about['run']}, {checkpoint}, on its {about['text']} text\n\n{table}")
    if options.picture is not None and not options.probes:
        from minitx.heads.figures import heads_figure

        title = f"{run.path.name}, {checkpoint}: scores on {measured.scored_tokens:,} tokens, losses on {len(tokens):,}"
        save(heads_figure(measured, title), options.picture)
    return 0


def parse(arguments: Sequence[str], prog: str) -> Any:
    """The options of the command line, with the text of --text_file as `text`; raises UserError for wrong ones."""
    parser = run_parser(prog, __doc__, newest=True)
    parser.add_argument("--text", help="Text to measure on; by default the run's whole validation split.")
    parser.add_argument("--text_file", metavar="FILE", help="File that holds the text, in UTF-8.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    parser.add_argument("--picture", metavar="FILE", help="Also draw layers × heads, a panel per figure.")
    parser.add_argument("--probes", action="store_true", help="Show the run's labelled links instead of the table.")
    parser.add_argument("--kinds", action="store_true", help="Show on held-out tales what heads are for instead.")
    parser.add_argument("--examples", action="store_true", help="Show where each head attends most sharply instead.")
    parser.add_argument("--tales", metavar="N", type=int | None, help=f"Tales for --kinds, {TALES} by default.")
    parser.add_argument("--history", metavar="FILE", help="Draw the scores over the run's steps instead.")
    parser.add_argument("--html", metavar="FILE", help="Write the Attention tab of text or probes as a page instead.")
    parser.add_argument("--output_projection", action="store_true", help="Also try the identity as output projection.")
    parser.add_argument("--no_ablation", action="store_true", help="Leave out ablation, which takes the longest.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps.")
    parser.add_argument(
        "--dtype",
        type=Literal["auto", "float32", "bfloat16"],
        default="auto",
        help="Precision that the table's losses are computed in; auto takes the quicker one.",
    )
    options = parse_plain(parser, arguments)
    exclude(options, "text", "text_file")
    exclude(options, "html", "json", "picture", "probes", "history", "output_projection")
    exclude(options, "examples", "text", "text_file", "html", "picture", "probes", "kinds", "history", *MEASURED)
    exclude(options, "kinds", "text", "text_file", "html", "probes", "history", *MEASURED)
    require(options.kinds or options.tales is None, "--tales counts the tales of --kinds: add that, or leave it out.")
    require(options.tales is None or options.tales > 0, f"--tales is {options.tales}, but it must be at least 1.")
    for name in (options.picture, options.history):
        is_picture = name is None or Path(name).suffix.lower() in (".png", ".svg", ".pdf")
        require(is_picture, f"{name} is no picture: end its name with .png, .svg or .pdf.")
    if options.html is not None:
        check_page_name(options.html)
    if options.text_file is not None:
        options.text = read_text("--text_file", options.text_file)
    require(options.text != "", "The text is empty: give some, or leave it out to take the run's validation split.")
    return options


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
    with tqdm(total=count, unit="token", disable=None, leave=False) as bar:
        return measure_heads(
            model, tokens, ablation=ablation, projection=projection, advance=bar.update, precision=runtime.autocast
        )


def measure_tales(run: Run, model: Transformer, count: int) -> KindMeasurements | None:
    """Measure on held-out tales what the heads are for, under a progress bar; None where none fits into the context."""
    from tqdm import tqdm

    from minitx.heads.kinds_report import measure_kinds
    from minitx.heads.places import held_out

    batches = held_out(run.config(), run.tokenizer(), count)
    fitting = sum(len(batch.lengths) for batch in batches)
    if not fitting:
        return None
    with tqdm(total=3 * fitting, unit="tale", disable=None, leave=False) as bar:
        return measure_kinds(model, batches, bar.update)


def show_kinds(run: Run, model: Transformer, checkpoint: str, options: Any) -> int:
    """Show what the heads are for in tales; the exit status. Raises UserError where no tale fits into the context."""
    from minitx.heads.places import tale_seed
    from minitx.heads.table import kinds_as_text

    config, count, longest = run.config(), options.tales or TALES, model.config.context_length
    source, seed, measured = config.data.source, tale_seed(config), measure_tales(run, model, count)
    fault = f"None of {count} tales fits into the {longest} tokens that {run.path} sees at once: take a longer context."
    if measured is None:
        raise UserError(fault)
    fitting = measured.tales
    if options.json:
        about = {"run": str(run.path), "checkpoint": checkpoint, "source": source, "seed": seed, "tales": count}
        print(json.dumps(about | measured.to_json(), indent=2, ensure_ascii=False))
    else:
        left_out = f" ({count - fitting:,} do not fit into its context)" if fitting < count else ""
        print(f"{run.path}, {checkpoint}, on {fitting:,} held-out tales{left_out}\n")
        if source != "tales":
            print(f"Its data.source is {source}, so it has not learned this language: expect no more than chance.\n")
        print(kinds_as_text(measured))
    if options.picture is not None:
        from minitx.heads.figures import kinds_figure

        save(
            kinds_figure(measured, f"{run.path.name}, {checkpoint}: {fitting:,} tales; frames are names"),
            options.picture,
        )
    return 0


def save(figure: Figure, name: str) -> None:
    """Save a figure as the picture `name`; raises UserError where it cannot be written."""
    save_picture(figure, name)
    print(f"picture in {name}", file=sys.stderr)
