"""The kinds of scaled rotary positions, and the numbers that each needs, by their names in `transformers`."""

from minitx.system.errors import require

RopeScaling = dict[str, float | str]
LENGTH = "original_max_position_embeddings"
NUMBERS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", LENGTH),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", LENGTH),
}
"""rope_type → the numbers beside it; see `minitx.rope`."""


def check_rope_scaling(scaling: RopeScaling, theta: float) -> None:
    """Raise `UserError` unless `scaling` has a kind of `NUMBERS` and its numbers, all above 0."""
    given, kind = f"model.rope_scaling is {scaling}, but", str(scaling.get("rope_type"))
    require(kind in NUMBERS, f"{given} its rope_type must be {', '.join(NUMBERS)}.")
    numbers = {name: value for name, value in scaling.items() if name != "rope_type"}
    require(set(numbers) == set(NUMBERS[kind]), f"{given} {kind} needs {', '.join(NUMBERS[kind])}.")
    are_right = all(type(value) in (int, float) and 0 < float(value) < 1e15 for value in numbers.values())
    require(are_right, f"{given} its numbers must be above 0.")
    is_ordered = kind != "llama3" or float(scaling["low_freq_factor"]) < float(scaling["high_freq_factor"])
    require(is_ordered, f"{given} low_freq_factor must be below high_freq_factor.")
    require(kind != "yarn" or theta > 1, f"{given} yarn needs a model.rope_theta above 1, not {theta}.")
