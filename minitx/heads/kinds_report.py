"""What the heads of a model are for, measured at once: all that `kinds` finds, also as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minitx.data.tales.tale import KINDS
from minitx.heads.kinds import (
    MIN_EXCESS,
    Advance,
    Answers,
    Looks,
    Mean,
    Uses,
    answer,
    kinds_above,
    kinds_needing,
    look,
    use,
)
from minitx.heads.places import TaleBatch
from minitx.model import Transformer
from minitx.system.files import without_nan


class HeadKinds(NamedTuple):
    """The kinds that a head has to do with, the greatest figure first."""

    layer: int
    head: int
    is_pruned: bool
    named: list[str]
    """Those that it is named after: see `kinds_of_heads`."""
    attends_only: list[str]
    """It attends to the deciding word, but no accuracy above chance is lost without it."""
    matters_only: list[str]
    """Accuracy above chance is lost without it, though it does not attend to the deciding word."""


@dataclass(frozen=True)
class KindMeasurements:
    """What a model knows of the tales, where its heads look, and what they are good for."""

    tales: int
    answers: Answers
    looks: Looks
    uses: Uses

    def heads(self) -> list[HeadKinds]:
        """All heads, layer by layer."""
        attended, needed = kinds_above(self.looks.excess, MIN_EXCESS), kinds_needing(self.answers, self.uses)
        found = []
        for layer, head in np.ndindex(self.looks.attention[next(iter(KINDS))].shape):
            looked, lost = attended[layer][head], needed[layer][head]
            named, attends_only = ([k for k in looked if (k in lost) == both] for both in (True, False))
            is_pruned = all(np.isnan(values[layer, head]) for values in self.looks.attention.values())
            found.append(HeadKinds(layer, head, is_pruned, named, attends_only, [k for k in lost if k not in looked]))
        return found

    @property
    def unclassified(self) -> float:
        """Share of the heads, pruned ones aside, that are named after no kind."""
        return float(np.mean([not head.named for head in self.heads() if not head.is_pruned]))

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `minitx heads --kinds --json` prints it; None in place of NaN."""
        content: dict[str, Any] = {"measured_tales": self.tales, "unclassified": self.unclassified, "kinds": {}}
        content["heads"] = [head._asdict() for head in self.heads()]
        for name in ("loss", "entropy", "above"):
            content[name] = _plain(getattr(self.answers, name))
        for kind in KINDS:
            content["kinds"][kind] = {
                part: {
                    name: _plain(by_kind[kind]) for name, by_kind in vars(figures).items() if isinstance(by_kind, dict)
                }
                for part, figures in (("answers", self.answers), ("looks", self.looks), ("uses", self.uses))
            }
        return dict(without_nan(content))


def _plain(figure: Any) -> Any:
    """A number, or lists of them; a mean has its error beside it."""
    if isinstance(figure, Mean):
        return {name: np.asarray(part).tolist() for name, part in figure._asdict().items()}
    return np.asarray(figure).tolist()


def measure_kinds(model: Transformer, batches: Sequence[TaleBatch], advance: Advance) -> KindMeasurements:
    """Measure `model` on at least one tale; `advance` gets the number of tales done, three times in all."""
    tales = sum(len(batch.lengths) for batch in batches)
    answers, looks = answer(model, batches, advance), look(model, batches, advance)
    return KindMeasurements(tales, answers, looks, use(model, batches, advance))
