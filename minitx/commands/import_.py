"""`minitx import FOLDER RUN`: make a run of a Llama or Qwen3 model with a SentencePiece tokenizer."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.config import Config, TokenizerConfig
from minitx.config.parsing import parse_plain
from minitx.system.program import command


def main(arguments: Sequence[str], prog: str) -> int:
    """Import as the command line says; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("folder", metavar="FOLDER", help="Folder with config.json, model.safetensors and a tokenizer.")
    parser.add_argument("run", metavar="RUN", help="Run folder to make.")
    options = parse_plain(parser, arguments)

    from minitx.heads import snapshots
    from minitx.heads.view import show_probe
    from minitx.interop.hf_import import import_folder
    from minitx.run import checkpoints
    from minitx.run.folder import Run

    model, tokenizer = import_folder(Path(options.folder))
    config = Config(model=model.config, tokenizer=TokenizerConfig(vocab_size=max(300, model.vocab_size)))
    with Run.building(options.run) as run:
        run.furnish(config, tokenizer, {"vocabulary": tokenizer.vocab_size})
        checkpoints.save(run.path, model, {}, {"step": 0}, best=True, keep=1)
        probes = [show_probe(model, tokenizer, probe) for probe in config.log.read_probes()]
        shown = snapshots.encode(0, probes, run=snapshots.run_id(run.path) or "")
        snapshots.write(run.path, 0, shown)  # lists the run in the Attention tab
    print(f'{options.folder} is in {run.path}. Next:\n  {command("generate")} {run.path} --prompt "The"')
    return 0
