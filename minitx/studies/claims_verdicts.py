"""The verdict on a claim: a rule, never a person, decides it.

Evidence is a number per seed, which the claim says lies above a limit, mostly 0. It speaks for the claim if its mean
over seeds lies above the limit by more than 2 standard errors, and against it if below by more than 2. A claim holds if
all its evidence speaks for it. It does not hold if any speaks against it. Else it is "not at this size": no clear
difference. One seed has no standard error, so it decides nothing. Differences are taken seed by seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minitx.heads.scores import Floats

RULE = (__doc__ or "").partition("\n\n")[2].strip()
CLEAR = 2.0
"""Standard errors over seeds."""
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not at this size"


class Evidence(NamedTuple):
    """A number per seed that a claim says is above `limit`."""

    what: str
    values: Sequence[float] | Floats
    limit: float = 0.0

    @property
    def verdict(self) -> str:
        """See the top of this module."""
        above = np.asarray(self.values, dtype=np.float64) - self.limit
        error = CLEAR * above.std(ddof=1) / math.sqrt(len(above)) if len(above) > 1 else math.nan
        return HOLDS if above.mean() > error else FAILS if above.mean() < -error else UNDECIDED

    def __str__(self) -> str:
        return f"{self.what}: {cell(self.values)}" + f" (limit {self.limit:g})" * bool(self.limit)


class Table(NamedTuple):
    """Figures behind a claim."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Claim:
    """A sentence of the literature and what speaks for it or against it."""

    name: str
    sentence: str
    source: str
    evidence: Sequence[Evidence]
    note: str = ""
    tables: Sequence[Table] = ()

    @property
    def verdict(self) -> str:
        """See the top of this module."""
        verdicts = [evidence.verdict for evidence in self.evidence]
        return FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts else HOLDS


def cell(values: Sequence[float] | Floats) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{round(float(np.mean(values)), 3) + 0.0:.3f}{spread}"  # + 0.0: never -0.000
