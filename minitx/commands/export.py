"""`minitx export RUN OUT`: write model and tokenizer for the `transformers` library, for llama.cpp, or as a page."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from minitx.commands.shared import run_parser, write_page
from minitx.config.parsing import parse_plain
from minitx.system.errors import require
from minitx.system.files import check_page_name, step_of


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
    repository = None if options.push is None else full_name(options.push)
    model, checkpoint = run.load_model(options.checkpoint, torch.device("cpu"))
    if options.format == "page":
        from minitx.interop.model_page import run_page

        write_page(out, run_page(run, model, step_of(checkpoint)))
        print(f"{run.path} ({checkpoint}) is in {out}: a browser opens it and runs the model, without a network.")
        return 0
    if options.format == "gguf":
        has_bytes = export_gguf(model, run.tokenizer(), Path(out), run.path.name)
        print(f"{run.path} ({checkpoint}) is in {out}: llama-server --model {out} runs it.")
        if not has_bytes:
            print("Characters outside ASCII that have no token are unknown to it; minitx reads their bytes.")
        return 0
    card = partial(readme, run, model, checkpoint, repository or Path(out).name)
    has_tokenizer = export_folder(model, run.tokenizer(), Path(out), card)
    print(f"{run.path} ({checkpoint}) is in {out}: AutoModelForCausalLM.from_pretrained({out!r}) loads the model.")
    if has_tokenizer:
        print(f"AutoTokenizer.from_pretrained({out!r}) loads the tokenizer, with the same ids for every text.")
    else:
        print("AutoTokenizer fails, for transformers cannot hold this tokenizer exactly: encode texts with minitx.")
    if repository is not None:
        print(f"{out} is on the Hub: {push(Path(out), repository, options.private)}")
    return 0
