"""The README.md of an exported folder: a model card, for people and for the Hugging Face Hub.

All figures are read from the run. Of files that the model learned from, the names are told without their folders.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from minitx.config import Config, ModelConfig
from minitx.data.sources import is_on_hub, is_path
from minitx.heads.roles import ROLES, UNCLASSIFIED, roles
from minitx.interop.hf import ARCHITECTURES
from minitx.model import Transformer
from minitx.model_size import parameters_by_part
from minitx.run.folder import Run
from minitx.system.fields import Fields
from minitx.system.files import step_of
from minitx.system.text import one_line
from minitx.training.model_card import attention_kind, flatten

UNTOLD = r"out|device|compile|threads|data\.source|init_from|train\.(sample_.*|(keep_)?checkpoint.*)|(log|parallel)\..*"
"""Settings that change no weight, or that name files and texts of this machine."""
GIVEN = r"|tokenizer\..*|model\.(?!context_length|dropout).*"
"""Settings that a run takes from `init_from`."""
Rows = list[tuple[str, object]]


def readme(run: Run, model: Transformer, checkpoint: str, name: str, has_tokenizer: bool) -> str:
    """The model card of a checkpoint. `name` is what `transformers` loads the model by: a folder or a repository.

    has_tokenizer: whether transformers loads the tokenizer, too.
    """
    config, about, step = run.config(), run.read_json("data.json"), step_of(checkpoint)
    is_trained, source = "train_tokens" in about, config.data.source
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    metadata["tags"] = ["minitx", "attention-heads"]
    if is_trained and is_on_hub(source) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        metadata["datasets"] = [source]
    origin = "trained with minitx" + (" from another run's weights" if config.init_from else "")
    origin = origin if is_trained else "imported into minitx from a model of others"
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# {one_line(name).rpartition('/')[2]}",
        f"A small decoder-only transformer of {ARCHITECTURES[model.config.qk_norm][0].capitalize()}'s architecture, "
        f"{origin}. It continues a text. It was not taught to answer or to follow instructions.",
        *usage(name, has_tokenizer),
    ]
    if is_trained:
        parts += ["## Train it again", f"```sh\n{training_command(config)}\n```"]
        parts += ["## Data", table(data_rows(config, about)), "## Figures", table(figure_rows(run, step))]
    parts += ["## Shape", table(shape_rows(model.config, model))]
    heads = head_rows(run, step)
    told = "What each head (layer.head) attends to, by its scores. Unclassified: no known role."
    return "\n\n".join([*parts, *(["## Heads", told, table(heads)] if heads else [])]) + "\n"


def usage(name: str, has_tokenizer: bool) -> list[str]:
    """How to load the model and generate from it."""
    program = "from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline\n\n"
    program += f"model = AutoModelForCausalLM.from_pretrained({name!r})\n"
    if has_tokenizer:
        program += f"tokenizer = AutoTokenizer.from_pretrained({name!r})\n"
        program += 'write = pipeline("text-generation", model=model, tokenizer=tokenizer)\n'
        program += 'print(write("The", max_new_tokens=50)[0]["generated_text"])\n'
    folder = shlex.quote(name.rpartition("/")[2])
    shell = f"hf download {name} --local-dir {folder}\n" if "/" in name else ""
    shell += f"minitx import {folder} runs/{folder}\nminitx generate runs/{folder} --prompt The\n"
    shell += "tensorboard --logdir runs  # what its heads attend to\n"
    note = [] if has_tokenizer else ["`transformers` cannot hold its tokenizer exactly: minitx alone reads it."]
    return ["## Use it", f"```python\n{program}```", *note, "With minitx:", f"```sh\n{shell}```"]


def training_command(config: Config) -> str:
    """The command that trains such a model, with the settings that differ from the defaults."""
    ours, defaults = flatten(config.to_dict()), flatten(Config().to_dict())
    told = {"init_from": f"runs/{Path(config.init_from).name}"} if config.init_from else {}
    told["data.source"] = public(config.data.source)
    for name, value in ours.items():
        if value != defaults.get(name) and not re.fullmatch(UNTOLD + (GIVEN if config.init_from else ""), name):
            text = value if isinstance(value, str) else json.dumps(value)
            told[name] = "null" if text == "None" else text
    return " \\\n    ".join(["minitx train", *(f"--{name} {shlex.quote(text)}" for name, text in told.items())])


def public(source: str) -> str:
    """A source as strangers may see it: of files, the last part of the path."""
    return Path(source).name if is_path(source) else source


def data_rows(config: Config, about: dict[str, Any]) -> Rows:
    """The text, and how it was split; `about`: data.json."""
    data = config.data
    held_out = f"held out ({data.val_fraction:g} of the text, seed {data.seed}, split_by {data.split_by})"
    rest = f"split {data.split}" if is_on_hub(data.source) else "the rest"
    rows: Rows = [("source", " ".join(filter(None, [public(data.source), data.name])))]
    for part, origin in (("train", rest), ("val", f"split {data.val_split}" if data.val_split else held_out)):
        sizes = [(unit, about.get(f"{part}_{unit}")) for unit in ("documents", "bytes", "tokens")]
        told = [f"{unit} {size:,}" for unit, size in sizes if isinstance(size, int)]
        rows.append(({"train": "training", "val": "validation"}[part], f"{', '.join(told)}; {origin}"))
    return rows


def figure_rows(run: Run, step: int) -> Rows:
    """What is known of a step, and of a finished run where it was computed."""
    rows: Rows = [("step", f"{step:,} of {run.config().train.steps:,}")]
    for line in [Fields(line, "metrics.jsonl") for line in run.metrics() if line.get("step") == step][-1:]:
        if line.has("val_loss"):
            rows.append(("validation loss", f"{line.number('val_loss'):.4f} nats per token"))
            rows.append(("validation, bits per byte", f"{line.number('val_bits_per_byte'):.4f}"))
        rows.append(("trained on", f"{line.whole('tokens'):,} tokens in {line.number('seconds'):,.0f} s"))
    summary = run.read_json("summary.json") if (run.path / "summary.json").is_file() else {}
    about_versions = summary.get("versions")
    known = about_versions if isinstance(about_versions, dict) else {}
    versions = ", ".join(f"{library} {version}" for library, version in known.items())
    told = {"device": summary.get("device"), "versions": versions}
    return [*rows, *((name, value) for name, value in told.items() if value)]


def shape_rows(shape: ModelConfig, model: Transformer) -> Rows:
    """The sizes of a model."""
    rows: Rows = [("parameters", f"{sum(parameters_by_part(model).values()):,}"), ("attention", attention_kind(shape))]
    rows += [("layers × heads", f"{shape.n_layer} × {shape.n_head}"), ("d_model", shape.d_model)]
    rows += [("d_head", shape.d_head), ("d_ff", shape.ff_width), ("context length", shape.context_length)]
    return [*rows, ("vocabulary", model.vocab_size)]


def head_rows(run: Run, step: int) -> Rows:
    """The heads by role at this step, or the last before it that has scores; nothing where there are none."""
    lines = [line for line in run.heads() if line["step"] <= step and {*ROLES} <= {*line["scores"]}]
    if not lines:
        return []
    scores = {name: np.array(values, float) for name, values in lines[-1]["scores"].items()}
    chance = {name: np.nan if value is None else value for name, value in lines[-1]["chance"].items()}
    by_role: dict[str, list[str]] = {role: [] for role in (*ROLES, UNCLASSIFIED)}
    for (layer, head), role in np.ndenumerate(roles(scores, chance).names):
        by_role[str(role)].append(f"{layer}.{head}")
    rows: Rows = [(role.replace("_", " "), " ".join(heads)) for role, heads in by_role.items() if heads]
    return [("scored at step", f"{lines[-1]['step']:,}"), *rows]


def table(rows: Rows) -> str:
    """Two columns in Markdown."""
    cells = [f"| {name} | {one_line(value).replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *cells])
