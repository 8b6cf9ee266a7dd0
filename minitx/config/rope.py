"""Scaled rotary positions, for models whose context was made longer after they had learned a shorter one.

Each kind divides the slow frequencies by a factor, and keeps a share of the fast ones as they are.
"""

import math

from minitx.system.errors import require

RopeScaling = dict[str, float | str]
LENGTH = "original_max_position_embeddings"
NUMBERS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", LENGTH),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", LENGTH),
}
"""rope_type → the numbers beside it, by their names in `transformers`."""


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


def scaled_frequencies(d_head: int, theta: float, scaling: RopeScaling) -> list[float]:
    """The d_head / 2 frequencies theta^(-2i / d_head), where a share of each is divided by `factor`.

    linear: all of it (Chen et al. 2023). llama3: all below `low_freq_factor` turns in the first context, nothing above
    `high_freq_factor`, and a share that is linear in the turns between (Llama 3.1). yarn: the same with `beta_slow` and
    `beta_fast`, but linear in i, between whole numbers (Peng et al. 2023, section 3.2).
    """
    number = {name: float(value) for name, value in scaling.items() if name != "rope_type"}
    frequencies = [theta ** (-2 * i / d_head) for i in range(d_head // 2)]
    kept = [0.0] * len(frequencies)
    if scaling["rope_type"] == "llama3":
        low, high = number["low_freq_factor"], number["high_freq_factor"]
        kept = [(number[LENGTH] * frequency / (2 * math.pi) - low) / (high - low) for frequency in frequencies]
    if scaling["rope_type"] == "yarn":
        fast, slow = (
            d_head * math.log(number[LENGTH] / (2 * math.pi * number[turns])) / (2 * math.log(theta))
            for turns in ("beta_fast", "beta_slow")
        )
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), d_head - 1)
        kept = [1 - (i - first) / (last - first or 0.001) for i in range(len(frequencies))]
    shares = [min(max(share, 0.0), 1.0) for share in kept]
    return [f * (share + (1 - share) / number["factor"]) for f, share in zip(frequencies, shares, strict=True)]
