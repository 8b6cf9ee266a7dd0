"""`minitx export RUN FOLDER`: write the run's model and tokenizer for the `transformers` library."""

from collections.abc import Sequence
from pathlib import Path

from minitx.commands.shared import run_parser
from minitx.config.parsing import parse_plain


def main(arguments: Sequence[str], prog: str) -> int:
    """Export as the command line says; the exit status."""
    parser = run_parser(prog, __doc__)
    parser.add_argument("folder", metavar="FOLDER", help="Folder to make, or one of an earlier export to replace.")
    options = parse_plain(parser, arguments)

    import torch

    from minitx.interop.hf import export_folder
    from minitx.run.folder import Run

    run, folder = Run.find(options.run), options.folder
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    has_tokenizer = export_folder(model, run.tokenizer(), Path(folder))
    print(
        f"{run.path} ({checkpoint}) is in {folder}: AutoModelForCausalLM.from_pretrained({folder!r}) loads the model."
    )
    if has_tokenizer:
        print(f"AutoTokenizer.from_pretrained({folder!r}) loads the tokenizer, with the same ids for every text.")
    else:
        print("AutoTokenizer fails, for transformers cannot hold this tokenizer exactly: encode texts with minitx.")
    return 0
