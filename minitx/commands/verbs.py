"""The verbs of the command line, and the module of each, which is imported when its verb is called."""

import importlib
from typing import Any

VERBS = {
    "train": "train a model; in a checkout, train.py is the same",
    "generate": "write text with a trained model; in a checkout, generate.py is the same",
    "heads": "show what each attention head of a run does and how much it matters",
    "walkthrough": "show one attention layer of a run step by step, with its real numbers",
    "data": "prepare a text for training and print its size",
    "compare": "train a model at several head counts, or with several kinds of attention",
    "claims": "try on small models what is said of attention heads, and say what holds",
    "bench": "measure speed and memory on this machine, against other programs",
    "plan": "say what training on many GPUs would need and take, without them",
    "prune": "remove attention heads for good",
    "export": "write a run's model for the transformers library or llama.cpp, or as a page that runs it",
    "import": "make a run of a Llama or Qwen3 model of the transformers library",
    "runs": "list the runs in a folder, and say which are whole",
    "configs": "list the configurations that --config takes by name, or print one",
    "completion": "write a script with which a shell completes what you type",
}


def module_of(verb: str) -> Any:
    """The module of a verb; its `main` takes arguments and the name of the command, and returns the exit status."""
    return importlib.import_module(f"minitx.commands.{verb.replace('import', 'import_')}")
