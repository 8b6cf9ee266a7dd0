"""How much every head attends from one place of a text to another, at every step of a run."""

import math
import re
import time
from typing import Any

from werkzeug.exceptions import BadRequest, NotFound

from minitx.heads.snapshot_rows import head_weights
from minitx.heads.snapshots import steps
from minitx.system.errors import UserError
from minitx.tensorboard.plugin.store import Store

MAX_SECONDS = 0.5  # of reading for one answer; the next request goes on after its last step


def attention(
    store: Store, run: str, probe: int, query: range, key: range | None, after: int, *, is_of_words: bool = False
) -> dict[str, Any]:
    """The weights of `head_weights` at the first steps after `after`, and whether these are all.

    {steps, values: by step a weight or null for every head, or null where the snapshot cannot be read, isAll}
    """
    wanted = [step for step in steps(store.folder(run)) if step > after]
    start, values = time.monotonic(), []
    for step in wanted:
        values.append(_weights(store, run, step, probe, query, key, is_of_words))
        if time.monotonic() - start > MAX_SECONDS:
            break
    return {"steps": wanted[: len(values)], "values": values, "isAll": len(values) == len(wanted)}


def _weights(
    store: Store, run: str, step: int, probe: int, query: range, key: range | None, is_of_words: bool
) -> list[float | None] | None:
    try:
        with store.open(run, step) as (file, header):
            found = head_weights(file, header, probe, query, key, is_of_words=is_of_words).tolist()
    except (OSError, ValueError, UserError, NotFound):
        return None
    return [None if math.isnan(weight) else round(weight, 6) for weight in found]


def span(value: str, name: str) -> range:
    """The tokens that "a-b" names, b left out; raises BadRequest."""
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", value)
    if not found or int(found[1]) >= int(found[2]):
        raise BadRequest(f"{name} is {value!r:.40}, but it must be two numbers of tokens such as 3-5.")
    return range(int(found[1]), int(found[2]))
