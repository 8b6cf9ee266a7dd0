"""`minitx export RUN FOLDER`: write the run's model, and its tokenizer.model, for the `transformers` library."""

from collections.abc import Sequence
from pathlib import Path

from minitx.commands.shared import run_parser
from minitx.config.parsing import parse_plain


def main(arguments: Sequence[str], prog: str) -> int:
    """Export as the command line says; the exit status."""
    parser = run_parser(prog, __doc__)
    parser.add_argument("folder", metavar="FOLDER", help="Folder to write config.json, model.safetensors into.")
    options = parse_plain(parser, arguments)

    import torch

    from minitx.interop.hf import export_model
    from minitx.run.folder import Run

    run, folder = Run.find(options.run), Path(options.folder)
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    tokenizer = run.tokenizer()
    export_model(model, folder, tokenizer.end_of_document)
    tokenizer.save(folder / "tokenizer.model")
    print(f"{run.path} ({checkpoint}) is in {folder}: AutoModelForCausalLM.from_pretrained({str(folder)!r}) loads it.")
    return 0
