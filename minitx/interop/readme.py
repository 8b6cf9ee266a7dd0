"""The README.md of an exported folder: a model card, for people and for the Hugging Face Hub.

All figures are read from the run. Of files that the model learned from, the names are told without their folders.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from minitx.config import Config
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.sources import is_on_hub, is_path
from minitx.data.tokenizer import Tokenizer
from minitx.heads.roles import ROLES, UNCLASSIFIED, roles
from minitx.interop.hf import ARCHITECTURES
from minitx.interop.tokenizer_json import tokenizer_files
from minitx.model import Transformer
from minitx.model_size import parameters_by_part
from minitx.run.folder import Run
from minitx.system.fields import Fields
from minitx.system.files import step_of
from minitx.system.text import one_line
from minitx.training.model_card import attention_kind, flatten

UNTOLD = re.compile(r"(out|device|compile|threads|data\.source|init_from|train\.sample_prompt|(log|parallel)\..*)")
"""Settings that change no weight, or that name files and texts of this machine."""
GIVEN = re.compile(r"tokenizer\..*|model\.(?!context_length|dropout).*")
"""Settings that a run takes from `init_from`."""
Rows = list[tuple[str, object]]


def readme(run: Run, model: Transformer, tokenizer: Tokenizer, checkpoint: str, name: str) -> str:
    """The model card of a checkpoint. `name` is what `transformers` loads the model by: a folder or a repository."""
    config, about = run.config(), run.read_json("data.json")
    is_trained, source = "train_tokens" in about, config.data.source
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    metadata["tags"] = ["minitx", "attention-heads"]
    if is_trained and is_on_hub(source) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        metadata["datasets"] = [source]
    count, shape = sum(parameters_by_part(model).values()), model.config
    kind = ARCHITECTURES[shape.qk_norm][0].capitalize()
    origin = "trained with minitx" + (" from another run's weights" if config.init_from else "")
    origin = origin if is_trained else "imported into minitx from a model of others"
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# {one_line(name).rpartition('/')[2]}",
        f"A small decoder-only transformer of {kind}'s architecture, {origin}: {count:,} parameters, {shape.n_layer} "
        f"layers of {shape.n_head} heads. It continues a text. It was not taught to answer or to follow instructions.",
        *usage(name, isinstance(tokenizer, JsonTokenizer) or "tokenizer.json" in tokenizer_files(tokenizer)),
    ]
    if is_trained:
        parts += ["## Train it again", fenced("sh", training_command(config))]
        parts += ["## Data", table(data_rows(config, about))]
    sizes: Rows = [("layers × heads", f"{shape.n_layer} × {shape.n_head}"), ("attention", attention_kind(shape))]
    sizes += [("d_model", shape.d_model), ("d_head", shape.d_head), ("d_ff", shape.ff_width)]
    sizes += [("context length", shape.context_length), ("vocabulary", model.vocab_size), ("parameters", f"{count:,}")]
    figures = table(figure_rows(run, config, step_of(checkpoint)))
    parts += ["## Figures", figures, "## Shape", table(sizes), *head_parts(run, step_of(checkpoint))]
    return "\n\n".join(parts) + "\n"


def usage(name: str, has_tokenizer: bool) -> list[str]:
    """How to load the model and generate from it."""
    program = "from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline\n\n"
    program += f"model = AutoModelForCausalLM.from_pretrained({name!r})\n"
    if has_tokenizer:
        program += f"tokenizer = AutoTokenizer.from_pretrained({name!r})\n"
        program += 'write = pipeline("text-generation", model=model, tokenizer=tokenizer)\n'
        program += 'print(write("The", max_new_tokens=50)[0]["generated_text"])'
    folder = shlex.quote(name.rpartition("/")[2])
    download = f"hf download {name} --local-dir {folder}\n" if "/" in name else ""
    shell = f"{download}minitx import {folder} runs/{folder}\nminitx generate runs/{folder} --prompt The\n"
    shell += "tensorboard --logdir runs  # what its heads attend to"
    note = [] if has_tokenizer else ["`transformers` cannot hold its tokenizer exactly: minitx alone reads it."]
    return ["## Use it", fenced("python", program), *note, "With minitx:", fenced("sh", shell)]


def training_command(config: Config) -> str:
    """The command that trains such a model, with the settings that differ from the defaults."""
    ours, defaults = flatten(config.to_dict()), flatten(Config().to_dict())
    given = {name for name in ours if UNTOLD.fullmatch(name) or (config.init_from and GIVEN.fullmatch(name))}
    changed = {name: ours[name] for name in ours if name not in given and ours[name] != defaults.get(name)}
    changed = {"data.source": public(config.data.source), **changed}
    if config.init_from:
        changed = {"init_from": f"runs/{Path(config.init_from).name}", **changed}
    texts = {n: value if isinstance(value, str) else json.dumps(value) for n, value in changed.items()}
    flags = [f"--{name} {shlex.quote('null' if text == 'None' else text)}" for name, text in texts.items()]
    return " \\\n    ".join(["minitx train", *flags])


def public(source: str) -> str:
    """A source as strangers may see it: of files, the last part of the path."""
    return Path(source).name if is_path(source) else source


def data_rows(config: Config, about: dict[str, Any]) -> Rows:
    """The text, and how it was split."""
    data = config.data
    split = f"held out ({data.val_fraction:g} of the text, seed {data.seed}, split_by {data.split_by})"
    rows: Rows = [("source", " ".join(filter(None, [public(data.source), data.name])))]
    for part, origin in (("train", f"split {data.split}" if is_on_hub(data.source) else "the rest"), ("val", split)):
        sizes = [f"{unit} {about[f'{part}_{unit}']:,}" for unit in ("documents", "bytes", "tokens")]
        origin = f"split {data.val_split}" if part == "val" and data.val_split else origin
        rows.append(({"train": "training", "val": "validation"}[part], f"{', '.join(sizes)}; {origin}"))
    return rows


def figure_rows(run: Run, config: Config, step: int) -> Rows:
    """What is known of a step: losses, tokens and seconds, and of a finished run where it was computed."""
    rows: Rows = [("step", f"{step:,} of {config.train.steps:,}")]
    for line in [Fields(line, "metrics.jsonl") for line in run.metrics() if line["step"] == step][-1:]:
        if line.has("val_loss"):
            rows.append(("validation loss", f"{line.number('val_loss'):.4f} nats per token"))
            rows.append(("validation, bits per byte", f"{line.number('val_bits_per_byte'):.4f}"))
        rows.append(("trained on", f"{line.whole('tokens'):,} tokens in {line.number('seconds'):,.0f} s"))
    if (run.path / "summary.json").is_file():
        summary = run.read_json("summary.json")
        versions = (f"{library} {version}" for library, version in summary["versions"].items())
        rows += [("device", summary["device"]), ("versions", ", ".join(versions))]
    return rows


def head_parts(run: Run, step: int) -> list[str]:
    """What the heads are, by their scores at this step or the last one before it; nothing where none are at hand."""
    lines = [line for line in run.heads() if line["step"] <= step and {*ROLES} <= {*line["scores"]}]
    if not lines:
        return []
    scores = {name: np.array(values, float) for name, values in lines[-1]["scores"].items()}
    chance = {name: np.nan if value is None else value for name, value in lines[-1]["chance"].items()}
    by_role: dict[str, list[str]] = {role: [] for role in (*ROLES, UNCLASSIFIED)}
    for (layer, head), role in np.ndenumerate(roles(scores, chance).names):
        by_role[str(role)].append(f"{layer}.{head}")
    rows: Rows = [(role.replace("_", " "), " ".join(heads)) for role, heads in by_role.items() if heads]
    told = f"What each head (layer.head) attends to, at step {lines[-1]['step']:,}. Unclassified: no known role."
    return ["## Heads", told, table(rows)]


def table(rows: Rows) -> str:
    """Two columns in Markdown."""
    cells: Sequence[str] = [f"| {name} | {one_line(value).replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *cells])


def fenced(language: str, text: str) -> str:
    """A block of code in Markdown."""
    return f"```{language}\n{text}\n```"
