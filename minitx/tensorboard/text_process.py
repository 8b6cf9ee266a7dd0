"""Run one text through a checkpoint and write what the heads attended to: the process behind the Attention tab's box.

Standard input: JSON with run (a folder), step and text. Standard output: a snapshot of one probe.
"""

from __future__ import annotations

import json
import sys

from minitx.system.exits import run_command


def main() -> int:
    """Read, run, write; the exit status."""
    asked = json.load(sys.stdin)
    import torch

    from minitx.heads.view import text_snapshot
    from minitx.run.folder import Run

    torch.set_num_threads(1)
    run = Run.find(asked["run"])
    model, _ = run.load_model(str(asked["step"]), torch.device("cpu"))
    tokenizer, text = run.tokenizer(), asked["text"]
    sys.stdout.buffer.write(text_snapshot(model, tokenizer, [(text, tokenizer.encode(text))], int(asked["step"])))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
