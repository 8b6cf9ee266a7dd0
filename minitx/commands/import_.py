"""`minitx import FOLDER RUN`: make a run of a Llama or Qwen3 model, or of all checkpoints of its training."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.commands.shared import read_text
from minitx.config.parsing import parse_plain
from minitx.system.errors import require
from minitx.system.program import command


def main(arguments: Sequence[str], prog: str) -> int:
    """Import as the command line says; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="Folder with config.json, safetensors and a tokenizer, or USER/NAME on the Hub.",
    )
    parser.add_argument("run", metavar="RUN", help="Run folder to make.")
    as_steps = "Make each folder, or branch on the Hub, such as checkpoint-500 a step of the run."
    parser.add_argument("--series", action="store_true", help=as_steps)
    longest = "Tokens that the run sees at once, at most those of the model."
    parser.add_argument("--context_length", type=int, default=2048, help=longest)
    parser.add_argument("--text_file", metavar="FILE", help="Text that heads are scored on; by default small tales.")
    options = parse_plain(parser, arguments)
    require(options.context_length >= 1, f"--context_length is {options.context_length}: give at least 1.")
    text = None if options.text_file is None else read_text("--text_file", options.text_file)
    require(text is None or text.strip() != "", f"--text_file {options.text_file} is empty: give some text.")

    from minitx.interop.hub_models import downloaded, is_on_hub
    from minitx.interop.series import import_run

    folder, folders = Path(options.folder), None
    if is_on_hub(options.folder):
        folders = downloaded(options.folder, options.series)
        folder = folders[max(folders)]
    length, is_series = options.context_length, options.series
    run = import_run(folder, options.run, length, text, is_series=is_series, folders=folders)
    print(f"{options.folder} is in {run.path}. Next:\n  {command('generate')} {run.path}")
    return 0
