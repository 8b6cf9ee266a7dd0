"""The language of the tales: any number of them from a seed, the same on every machine and every Python."""

import copy
from collections.abc import Iterator
from hashlib import blake2b, sha256
from importlib import resources
from random import Random

from minitx.data.tales.scenes import SCENES, Cast, Scene, calling, closing, opening
from minitx.data.tales.tale import Split, Tale, Teller

SCENES_IN_A_TALE = (1, 2, 3)
TRIES = 100
"""How often a scene is told again to find one that belongs to the split, before the tale starts anew."""
GRAMMAR = sha256(
    b"".join(
        file.read_bytes()
        for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".py")
    )
).hexdigest()
"""SHA-256 of the tables and rules as they were imported, in hexadecimal: another grammar tells other tales."""


def tales(split: Split, seed: int, start: int = 0) -> Iterator[Tale]:
    """The tales of a split without end, from tale number `start` on; each depends on its number and `seed` alone."""
    number = start
    while True:
        digest = blake2b(f"{seed} {split} {number}".encode(), digest_size=8).digest()
        random = Random(int.from_bytes(digest)).random
        tale = None
        while tale is None:
            tale = tell(Teller(random, split))
        yield tale
        number += 1


def tell(teller: Teller) -> Tale | None:
    """Tell one tale: an opening, one to three different scenes, a closing; None where no scene belongs to the split."""
    cast = opening(teller)
    scenes = [scene for scene in SCENES if cast.pet is not None or scene is not calling]
    told: list[Scene] = []
    for _ in range(teller.pick(SCENES_IN_A_TALE)):
        told.append(teller.pick(scenes, *told))
    for scene in [*told, closing]:
        if not tell_scene(teller, cast, scene):
            return None
    return Tale(teller.text, tuple(teller.labels), teller.nats)


def tell_scene(teller: Teller, cast: Cast, scene: Scene) -> bool:
    """Tell a scene, again and again until it belongs to the split; whether that was possible."""
    before = copy.copy(vars(teller))
    labels = list(teller.labels)
    for _ in range(TRIES):
        scene(teller, cast)
        if teller.is_allowed:
            return True
        vars(teller).update(before, labels=list(labels))
    return False
