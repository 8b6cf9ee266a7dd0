"""`minitx data`: prepare a text for training and print its size: documents, bytes, tokens, and its split."""

from collections.abc import Sequence

from minitx.commands.train import parse_train


def main(arguments: Sequence[str], prog: str) -> int:
    """Prepare as the command line says; the exit status."""
    config, _ = parse_train(arguments, prog, "Prepare the text of a configuration for training, and print its size.")

    from minitx.data.prepare import prepare

    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    for name, value in prepared.describe().items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.2%}" if isinstance(value, float) else value
        print(f"{name:18} {shown}")
    print(f"{'kept in':18} {prepared.folder}")
    return 0
