"""`minitx import FOLDER RUN`: make a run of a Llama or Qwen3 model with a SentencePiece tokenizer.model."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.config import Config, TokenizerConfig
from minitx.config.parsing import parse_plain
from minitx.system.errors import require


def main(arguments: Sequence[str], prog: str) -> int:
    """Import as the command line says; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("folder", metavar="FOLDER", help="Folder with config.json, model.safetensors, tokenizer.model.")
    parser.add_argument("run", metavar="RUN", help="Run folder to make.")
    options = parse_plain(parser, arguments)

    from minitx.data.tokenizer import Tokenizer
    from minitx.interop.hf import import_model
    from minitx.run import checkpoints
    from minitx.run.folder import Run

    folder = Path(options.folder)
    model = import_model(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    require(
        tokenizer.vocab_size == model.vocab_size,
        f"tokenizer.model has {tokenizer.vocab_size} tokens, but the model was made for {model.vocab_size}.",
    )
    config = Config(model=model.config, tokenizer=TokenizerConfig(vocab_size=max(300, model.vocab_size)))
    run = Run.create(options.run, config, tokenizer, {"vocabulary": tokenizer.vocab_size})
    checkpoints.save(run.path, model, {}, {"step": 0}, best=True, keep=1)
    print(f'{folder} is in {run.path}. Next:\n  python generate.py {run.path} --prompt "The"')
    return 0
