"""Each head's strongest examples at one step, in a small file: where in validation text it attends most sharply.

    runs/NAME/attention/examples-000480.json

The file holds the scanned text once, as labels of tokens, and places in it as numbers. Token i lies in window
i // window, and a model sees only its own window. `read` checks all that it reads, and `head_examples` cuts the context
of every place out of the text. Needs no torch, for the Attention tab reads these files too.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minitx.heads.snapshot_header import MAX_HEADS, MAX_STEP
from minitx.heads.snapshots import FOLDER, run_id
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields
from minitx.system.files import json_bytes, read_json, remove, remove_drafts, steps_in, write_atomically

PREFIX, SUFFIX = "examples-", ".json"
MAX_TOKENS = 65536
STRONGEST, PER_TENTH = 8, 2
"""Places of a head: the strongest, and a sample from every tenth of the scale."""
BEFORE, AFTER = 8, 4
"""Tokens of context on either side of a query and of its key."""


class Place(NamedTuple):
    """A query and the key that it attends to, as numbers of tokens in the scanned text, and the weight."""

    query: int
    key: int
    weight: float


class HeadExamples(NamedTuple):
    """What a head does in the scanned text; every list is empty in a pruned head."""

    strongest: list[Place]
    """By falling weight, at most one for each pair of a query's token and a key's."""
    samples: list[list[Place]]
    """(tenth): random places whose weight lies in it, from [0, 0.1) to [0.9, 1]."""
    counts: list[int]
    """(tenth): queries whose weight lies in it."""


class Examples(NamedTuple):
    """The examples of all heads at a step; `run` is the `snapshots.run_id`."""

    step: int
    run: str
    layers: int
    heads: int
    """In a layer."""
    window: int
    """Tokens that the model saw at once."""
    tokens: list[str]
    """A label for every scanned token, window after window."""
    of_heads: list[HeadExamples]
    """(layer * heads + head)"""


def path(run: Path, step: int) -> Path:
    """Where the examples of `step` lie."""
    return run / FOLDER / f"{PREFIX}{step:06d}{SUFFIX}"


def steps(run: Path) -> list[int]:
    """The steps that a run folder has examples of, in order."""
    return steps_in((file.name for file in (run / FOLDER).glob(f"{PREFIX}*{SUFFIX}")), SUFFIX, PREFIX)


def step_for(known: Sequence[int], step: int) -> int | None:
    """The last of the `known` steps up to `step`, or the first of all where none is so early; None without any."""
    return max((earlier for earlier in known if earlier <= step), default=min(known, default=None))


def write(run: Path, examples: Examples) -> None:
    """Put examples into a run folder. A reader sees all of them or nothing; equal examples give equal bytes."""
    file = path(run, examples.step)
    file.parent.mkdir(exist_ok=True)
    content = {**examples._asdict(), "of_heads": [head._asdict() for head in examples.of_heads]}
    write_atomically(file, json_bytes(content, indent=None))


def forget_after(run: Path, step: int) -> None:
    """Remove the examples after `step`, which a resumed run writes again, and drafts of killed processes."""
    remove_drafts(run / FOLDER, rf"{PREFIX}[0-9]+{re.escape(SUFFIX)}(?:-old)?")
    for later in steps(run):
        if later > step:
            remove(path(run, later))


def read(run: Path, step: int) -> Examples:
    """The examples of a step; raises UserError for a file that is damaged, renamed or of another run."""
    file = path(run, step)
    try:
        found = checked(read_json(file))
        require(found.step == step, f"{file.name} holds the examples of step {found.step}: it was renamed.")
        require(found.run == (run_id(run) or found.run), f"{file.name} is of another run: it was copied here.")
        return found
    except UserError as error:
        raise UserError(str(error).replace(str(file), file.name)) from error


def checked(content: Any) -> Examples:
    """The examples in the content of a file, all of the right type and size; raises UserError otherwise."""
    fields = Fields(content, "The file of examples")
    layers, heads = fields.whole("layers", 1, MAX_HEADS), fields.whole("heads", 1, MAX_HEADS)
    labels, window = fields.inside("tokens", list, 1, MAX_TOKENS), fields.whole("window", 1, MAX_TOKENS)
    tokens = [labels.text(i) for i in labels]
    fields.expect(len(tokens) % window == 0, "window", f"a divisor of {len(tokens)} tokens")
    fields.expect(layers * heads <= MAX_HEADS, "heads", f"at most {MAX_HEADS} in all layers together")
    of_heads = fields.inside("of_heads", list, layers * heads, layers * heads)
    step, run = fields.whole("step", most=MAX_STEP), fields.text("run")
    found = [_checked_head(of_heads.inside(i, dict), len(tokens), window) for i in of_heads]
    return Examples(step, run, layers, heads, window, tokens, found)


def _checked_head(head: Fields, length: int, window: int) -> HeadExamples:
    counts, samples = head.inside("counts", list, most=10), head.inside("samples", list, most=10)
    head.expect(len(counts) == len(samples) and len(counts) in (0, 10), "counts", "10 entries, or none, as in samples")
    return HeadExamples(
        _checked_places(head.inside("strongest", list, most=STRONGEST), length, window),
        [_checked_places(samples.inside(i, list, most=PER_TENTH), length, window) for i in samples],
        [counts.whole(i, most=length) for i in counts],
    )


def _checked_places(places: Fields, length: int, window: int) -> list[Place]:
    found = []
    for place in (places.inside(i, list, 3, 3) for i in places):
        query = place.whole(0, most=length - 1)
        key = place.whole(1, query - query % window, query)  # in the same window
        found.append(Place(query, key, place.number(2, 0, 1)))
    return found


# What a reader is shown


def head_examples(examples: Examples, head: int) -> dict[str, Any]:
    """The examples of a head, counted through the layers, as plain data with the context of every place.

    Raises UserError where there is no such head.
    """
    require(0 <= head < len(examples.of_heads), f"There is no head {head} in these examples.")
    found = examples.of_heads[head]
    return {
        "step": examples.step,
        "head": head,
        "scanned": len(examples.tokens),
        "window": examples.window,
        "counts": found.counts,
        "strongest": [in_context(examples, place) for place in found.strongest],
        "samples": [[in_context(examples, place) for place in tenth] for tenth in found.samples],
    }


def in_context(examples: Examples, place: Place) -> dict[str, Any]:
    """A place with the tokens around its query and its key: `context` holds [position, label], in order.

    Positions count from the start of the window. Where they leave some out, so does the context.
    """
    start = place.query - place.query % examples.window
    stop = start + examples.window
    shown = sorted(
        {i for centre in (place.key, place.query) for i in range(centre - BEFORE, centre + AFTER + 1)}
        & {*range(start, stop)}
    )
    context = [[i - start, examples.tokens[i]] for i in shown]
    return {"query": place.query - start, "key": place.key - start, "weight": place.weight, "context": context}


def as_text(examples: Examples, strongest: int = STRONGEST) -> str:
    """The strongest places of every head, a line each, and the share of queries in every tenth of the scale."""
    lines = []
    for head in range(len(examples.of_heads)):
        shown = head_examples(examples, head)
        lines.append(f"\nlayer {head // examples.heads} head {head % examples.heads}")
        lines += [f"  {place['weight']:.2f}  {marked(place)}" for place in shown["strongest"][:strongest]]
        total = sum(shown["counts"])
        shares = [f"{tenth / 10:.1f}: {count / total:.0%}" for tenth, count in enumerate(shown["counts"]) if count]
        lines.append(f"  weight from {', '.join(shares)} of the queries" if shares else "  no examples")
    return "\n".join(lines).strip("\n")


def marked(place: Mapping[str, Any]) -> str:
    """The context of a place as running text: [query], «key», and … where tokens are left out."""
    marks, parts, last = {place["query"]: ("[", "]"), place["key"]: ("«", "»")}, [], -1
    for position, label in place["context"]:
        parts += ["…"] * (position != last + 1)
        before, after = marks.get(position, ("", ""))
        word = label.lstrip("␣")
        parts.append(f"{label[: -len(word)] if word else ''}{before}{word or label}{after}")
        last = position
    return "".join(parts).replace("␣", " ")
