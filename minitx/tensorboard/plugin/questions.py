"""What may be asked of a model about a text, and the fields of each question, checked before they reach the worker.

The function of the same name in `QUESTIONS` of `minitx.tensorboard.text_process` answers. It checks what only the model
knows, such as its number of heads.
"""

from collections.abc import Callable
from typing import Any

from werkzeug.exceptions import BadRequest

from minitx.system.fields import Fields

MAX_HEADS, MAX_POSITION = 4096, 10**6


def without(request: Fields) -> dict[str, Any]:
    """heads: flat indices, layer * heads + head; how: "zero" or "mean"."""
    heads = request.inside("heads", list, most=MAX_HEADS)
    return {"heads": [heads.whole(place, most=MAX_HEADS - 1) for place in heads], "how": how(request)}


def ranking(request: Fields) -> dict[str, Any]:
    """positions: [start, end), where predictions count; how as in `without`."""
    positions = request.inside("positions", list, 2, 2)
    return {"positions": [positions.whole(place, most=MAX_POSITION) for place in positions], "how": how(request)}


def writes(request: Fields) -> dict[str, Any]:
    """head: flat index; position: of the token at which it writes."""
    return {"head": request.whole("head", most=MAX_HEADS - 1), "position": request.whole("position", most=MAX_POSITION)}


def blocks(request: Fields) -> dict[str, Any]:
    """layer; position: of the token that the layer is seen from."""
    return {"layer": request.whole("layer", most=MAX_HEADS), "position": request.whole("position", most=MAX_POSITION)}


def how(request: Fields) -> str:
    """What stands in for a head that is taken out."""
    return request.text("how", "zero|mean", "zero or mean")


FIELDS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "without": without,
    "ranking": ranking,
    "writes": writes,
    "blocks": blocks,
}


def checked(request: Fields) -> tuple[str, dict[str, Any]]:
    """The question of a request and its fields alone; raises BadRequest and UserError."""
    question = request.text("question")
    if question not in FIELDS:
        raise BadRequest(f"There is no question {question!r:.40}: ask {', '.join(FIELDS)}.")
    return question, FIELDS[question](request)
