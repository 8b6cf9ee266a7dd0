"""The weights of a model of `transformers`: one file of safetensors, several with an index, or a model in memory."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from minitx.system.errors import UserError, require
from minitx.system.fields import Fields, parse_json
from minitx.system.files import MAX_JSON, open_regular, read_file, reading

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
LEFT_OUT = ".rotary_emb.inv_freq"
"""End of the name of what older versions of transformers saved, though it follows from the configuration."""
MAX_SHARDS = 1000


class Weights(NamedTuple):
    """Tensors by name, of which `get` reads one."""

    shapes: dict[str, list[int]]
    get: Callable[[str], Tensor]
    origin: str


def in_memory(tensors: Mapping[str, Tensor], origin: str) -> Weights:
    """The weights of a `state_dict`."""
    shapes = {name: [*tensor.shape] for name, tensor in tensors.items() if not name.endswith(LEFT_OUT)}
    return Weights(shapes, tensors.__getitem__, origin)


@contextlib.contextmanager
def open_weights(folder: Path) -> Iterator[Weights]:
    """The weights in a folder, whose files are as large as they say; raises UserError for all that is damaged."""
    shapes: dict[str, list[int]] = {}
    place = {}
    with contextlib.ExitStack() as stack:
        for file in weight_files(folder):
            require(os.path.lexists(file), f"{file} is missing, with part of the weights: get a whole copy.")
            with open_regular(file) as opened, reading(file):
                length = int.from_bytes(opened.read(8), "little")
            too_long = f"its header would have {length:,} bytes, at most {MAX_JSON:,} fit"
            require(length <= MAX_JSON, f"{file} is damaged: {too_long}.")
            with refused(file):
                opened_file = stack.enter_context(safe_open(file, "pt"))
                for name in opened_file.keys():  # noqa: SIM118 (it is no dict)
                    require(name not in place, f"{file} holds {name}, which another file holds too: leave one out.")
                    if not name.endswith(LEFT_OUT):
                        place[name], shapes[name] = (opened_file, file), opened_file.get_slice(name).get_shape()

        def get(name: str) -> Tensor:
            opened_file, file = place[name]
            with refused(file):
                return opened_file.get_tensor(name)

        origin = str(folder / WEIGHTS) if len({file for _, file in place.values()}) == 1 else str(folder)
        yield Weights(shapes, get, origin)


@contextlib.contextmanager
def refused(file: Path) -> Iterator[None]:
    """Turn errors of the library into a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as weights ({error}): get a whole copy.") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of safetensors: model.safetensors, or those that the index names."""
    if os.path.lexists(folder / WEIGHTS) or not os.path.lexists(folder / INDEX):
        return [folder / WEIGHTS]
    index = folder / INDEX
    places = Fields(parse_json(read_file(index, MAX_JSON), str(index)), str(index)).inside("weight_map", dict, 1)
    plain = r"[^/\\]+\.safetensors"  # no path that leaves the folder
    return [
        folder / name for name in sorted({places.text(tensor, plain, "a file of safetensors") for tensor in places})
    ]
