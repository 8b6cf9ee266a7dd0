"""Runs one text through a checkpoint: the process behind the text box of the Attention tab.

Standard input: JSON with run (a folder), step and text. Standard output: a snapshot with the text as its only probe.
"""

import json
import sys

from minitx.system.exits import run_command


def main() -> int:
    """Read the text, run it and write the snapshot; returns the exit status."""
    request = json.load(sys.stdin)
    import torch

    from minitx.heads.view import text_snapshot
    from minitx.run.folder import Run

    torch.set_num_threads(1)
    run = Run.find(request["run"])
    model, _ = run.load_model(str(request["step"]), torch.device("cpu"))
    tokenizer, text = run.tokenizer(), request["text"]
    sys.stdout.buffer.write(text_snapshot(model, tokenizer, [(text, tokenizer.encode(text))], int(request["step"])))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
