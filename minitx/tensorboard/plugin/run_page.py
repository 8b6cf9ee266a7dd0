"""The page of one probe of a run: at all steps if they fit into a file of `MAX_PAGE_BYTES`, else at every nth."""

import re
from collections.abc import Sequence
from contextlib import suppress

from werkzeug.exceptions import NotFound

from minitx.heads import snapshots
from minitx.system.errors import UserError, require
from minitx.tensorboard.plugin.page import page
from minitx.tensorboard.plugin.store import Store

MAX_PAGE_BYTES = 8_000_000
"""Of a whole HTML file."""
CHECKSUM_BYTES = 18
"""That a head's whole pattern takes in the header, at most: its checksum and its number."""


def run_page(store: Store, run: str, probe: int, shown_step: int | None, view: str) -> str:
    """The page that opens with `view` at `shown_step`, by default the last.

    Where one step of all heads takes more than a file may, it holds the whole patterns of as many heads as fit: first
    those that `view` shows. Raises NotFound, or UserError if no head fits.
    """
    steps = snapshots.steps(store.folder(run))
    shown = steps[-1] if shown_step is None and steps else shown_step or 0
    store.file(run, shown)
    title = run if run != "." or store.root is None else store.root.name

    def read(chosen: Sequence[int], heads: Sequence[int] | None) -> list[bytes]:
        contents = []
        for step in chosen:
            with suppress(UserError, NotFound), store.open(run, step) as (file, header):
                count = header["layers"] * header["heads"]
                contents.append(snapshots.extract(file, header, probe, range(count) if heads is None else heads))
        return contents

    room = MAX_PAGE_BYTES - len(page([], title=title, view=view, steps_of=len(steps)).encode())
    heads = fitting_heads(store, run, [shown, *reversed(steps)], probe, view, room)
    contents, stride = read([shown], heads), 1
    if contents:
        stride = max(1, encoded_bytes(contents) * len(steps) // room)
    while stride <= len(steps):
        taken = read(sorted({*steps[::-1][::stride], shown}), heads)
        if encoded_bytes(taken) <= room:
            contents = taken
            break
        stride += max(1, stride // 8)
    if not contents:
        raise NotFound(f"The run {run!r:.200} has no snapshot of probe {probe} that can be read.")
    return page(contents, title=title, view=view, steps_of=len(steps))


def fitting_heads(store: Store, run: str, steps: Sequence[int], probe: int, view: str, room: int) -> list[int] | None:
    """The heads whose whole patterns fit into `room` at one step, those of `view` first; None if all do.

    It reads the first of `steps` that can be read.
    """
    for step in steps:
        with suppress(NotFound, UserError), store.open(run, step) as (file, header):
            small = snapshots.extract(file, header, probe)
            sizes, count = snapshots.part_sizes(header["probes"][probe], header), header["layers"] * header["heads"]
            break
    else:
        return None
    left = room - encoded_bytes([small])
    require(left >= 0, f"One step of this probe takes more than the {MAX_PAGE_BYTES:,} bytes of a page.")
    if len(sizes) == 1:
        return None
    most = left * 3 // 4 // (max(sizes[1:]) + CHECKSUM_BYTES)
    in_view = map(int, re.findall(r"\d{1,4}", " ".join(re.findall(r"\b(?:head|shown)=([0-9.]+)", view))))
    ordered = dict.fromkeys([*(head for head in in_view if head < count), *range(count)])
    return None if most >= count else [*ordered][:most]


def encoded_bytes(contents: Sequence[bytes]) -> int:
    """Bytes that `contents` take in base64, each in quotes and with a comma."""
    return sum(-(-len(content) // 3) * 4 + 4 for content in contents)
