"""`minitx export RUN OUT`: write model and tokenizer for the `transformers` library, for llama.cpp, or as a page."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from minitx.commands.shared import run_parser
from minitx.config.parsing import parse_plain
from minitx.system.errors import require
from minitx.system.files import check_page_name, step_of, write_output

MARKS = {"gguf": b"GGUF", "page": b"<title>Attention"}
"""What an exported file of a format has near its beginning."""


def main(arguments: Sequence[str], prog: str) -> int:
    """Export as the command line says; the exit status."""
    parser = run_parser(prog, __doc__)
    parser.add_argument("out", metavar="OUT", help="Folder or file to make, or one of an earlier export to replace.")
    parser.add_argument(
        "--format",
        type=Literal["transformers", "gguf", "page"],
        default="transformers",
        help="transformers makes a folder; gguf a file for llama.cpp, whose name ends with .gguf; page an HTML file "
        "that runs the model.",
    )
    parser.add_argument("--push", metavar="NAME", help="Also put it on the Hugging Face Hub, as the model USER/NAME.")
    parser.add_argument("--private", action="store_true", help="With --push: only you may see it there.")
    options = parse_plain(parser, arguments)
    is_alone = options.push is None or options.format == "transformers"
    require(is_alone, f"--push puts the transformers format on the Hub: leave --format {options.format} out.")
    require(options.push is not None or not options.private, "--private is for --push NAME: give both.")

    import torch

    from minitx.interop.gguf import check_name, export_gguf
    from minitx.interop.hf import export_folder
    from minitx.interop.hub import full_name, push
    from minitx.interop.readme import readme
    from minitx.run.folder import Run

    run, out = Run.find(options.run), options.out
    if options.format == "gguf":
        check_name(out)
    if options.format == "page":
        check_page_name(out)
    replaces = is_replaced(Path(out), MARKS.get(options.format))
    repository = None if options.push is None else full_name(options.push)
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    place = f"{run.path} ({checkpoint}) is in {out}{', in place of an earlier export' if replaces else ''}"
    if options.format == "page":
        from minitx.interop.model_page import run_page

        write_output(out, run_page(run, model, step_of(checkpoint)).encode())
        print(f"{place}: a browser opens it and runs the model, without a network.")
        return 0
    if options.format == "gguf":
        has_bytes = export_gguf(model, run.tokenizer(), Path(out), run.path.name)
        print(f"{place}: llama-server --model {out} runs it.")
        if not has_bytes:
            print("Characters outside ASCII that have no token are unknown to it; minitx reads their bytes.")
        return 0
    card = partial(readme, run, model, checkpoint, repository or Path(out).name)
    has_tokenizer = export_folder(model, run.tokenizer(), Path(out), card)
    print(f"{place}: AutoModelForCausalLM.from_pretrained({out!r}) loads the model.")
    if has_tokenizer:
        print(f"AutoTokenizer.from_pretrained({out!r}) loads the tokenizer, with the same ids for every text.")
    else:
        print("AutoTokenizer fails, for transformers cannot hold this tokenizer exactly: encode texts with minitx.")
    if repository is not None:
        print(f"{out} is on the Hub: {push(Path(out), repository, options.private)}")
    return 0


def is_replaced(out: Path, mark: bytes | None) -> bool:
    """Whether something is in `out`; raises UserError for a file without the mark of an export, unless it is empty.

    A folder is looked into by `export_folder`.
    """
    if not out.is_file() or mark is None:
        return out.is_dir() and any(out.iterdir())
    with out.open("rb") as opened:
        start = opened.read(1000)
    require(not start or mark in start, f"{out} is another file than an export: name a new one.")
    return bool(start)
