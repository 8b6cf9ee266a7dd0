"""`minitx configs`: the configurations that `--config` takes by name; with a name, that file."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.config.parsing import load_config, parse_plain
from minitx.config.shipped import CONFIGS, config_names, find_config, summary


def main(arguments: Sequence[str], prog: str) -> int:
    """List the configurations, or print one; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("name", metavar="NAME", nargs="?", help="Print this configuration.")
    name = parse_plain(parser, arguments).name
    if name is not None:
        print(find_config(name).read_text("utf-8"), end="")
        return 0
    for known in config_names():
        print(about(CONFIGS / f"{known}.yaml"))
    return 0


def about(file: Path) -> str:
    """Two lines on a configuration: name, model, steps and text; below, what it says of itself."""
    config = load_config(file)
    model, heads = config.model, config.model.n_head
    shape = f"{model.n_layer} layers × {heads} heads, {model.d_model} wide, {model.context_length} tokens of context"
    return f"{file.stem}: {shape}; {config.train.steps:,} steps on {config.data.source}\n    {summary(file)}"
