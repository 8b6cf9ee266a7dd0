"""While a model learns tales: what it knows of each kind of relationship, and where its heads look for it."""

from functools import cached_property

from minitx.heads.kinds import Answers, Looks, answer, look
from minitx.heads.places import TaleBatch, held_out
from minitx.heads.scores import Floats
from minitx.tensorboard.head_charts import KIND
from minitx.training.state import Training

ASKED, ASKED_LAST, LOOKED = 200, 1000, 100
"""Held-out tales: for the answers while training and after it, and for where heads look."""


class KindLog:
    """Measures the model of a run on held-out tales."""

    def __init__(self, training: Training) -> None:
        self.training = training

    @property
    def is_on(self) -> bool:
        """Whether this run learns tales, and its context has room for whole ones."""
        return self.training.config.data.source == "tales" and bool(self._looked)

    def answers(self) -> Answers:
        """What the model knows."""
        is_last = self.training.step == self.training.config.train.steps
        return answer(self.training.model, self._tales(ASKED_LAST) if is_last else self._asked)

    def scores(self) -> tuple[dict[str, Floats], dict[str, float]]:
        """Where heads look, as scores (layer, head) by name, and those of even attention."""
        looks: Looks = look(self.training.model, self._looked)
        names = {kind: KIND.format(kind) for kind in looks.attention}
        chance = {names[kind]: even for kind, (even, _) in looks.chance.items()}
        return {names[kind]: attention for kind, attention in looks.attention.items()}, chance

    @cached_property
    def _asked(self) -> list[TaleBatch]:
        return self._tales(ASKED)

    @cached_property
    def _looked(self) -> list[TaleBatch]:
        return self._tales(LOOKED)

    def _tales(self, count: int) -> list[TaleBatch]:
        return held_out(self.training.config, self.training.prepared.tokenizer, count)
