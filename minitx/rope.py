"""Scaled rotary positions, for models whose context was made longer after they had learned a shorter one.

Each kind in `config.rope` divides the frequencies of slow components, and keeps a share of the fast ones as they are.
"""

import math

import torch
from torch import Tensor

from minitx.config import ModelConfig
from minitx.config.rope import LENGTH, RopeScaling


def scaled_tables(config: ModelConfig, scaling: RopeScaling) -> tuple[Tensor, Tensor]:
    """As `rotary_tables`, each (context_length, d_head / 2), with scaled frequencies."""
    frequency = scaled_frequencies(config.rotary_width, config.rope_theta, scaling)  # (d_head / 2)
    angle = torch.outer(torch.arange(config.context_length, dtype=torch.float32), frequency)
    factor = float(scaling.get("attention_factor", 1))  # yarn sharpens attention by longer queries and keys
    return angle.cos() * factor, angle.sin() * factor


def scaled_frequencies(d_head: int, theta: float, scaling: RopeScaling) -> Tensor:
    """(d_head / 2): the frequencies theta^(-2i / d_head), where a share of each is divided by `factor`.

    linear: all of it (Chen et al. 2023). llama3: all below `low_freq_factor` turns in the first context, nothing above
    `high_freq_factor`, and a share that is linear in the turns between (Llama 3.1). yarn: the same with `beta_slow` and
    `beta_fast`, but linear in i, between whole numbers (Peng et al. 2023, section 3.2).
    """
    i = torch.arange(d_head // 2, dtype=torch.float32)
    frequency, number = theta ** (-2 * i / d_head), {k: float(v) for k, v in scaling.items() if k != "rope_type"}
    kept = torch.zeros_like(i)
    if scaling["rope_type"] == "llama3":
        turns, low = number[LENGTH] * frequency / (2 * math.pi), number["low_freq_factor"]
        kept = ((turns - low) / (number["high_freq_factor"] - low)).clamp(0, 1)
    if scaling["rope_type"] == "yarn":
        fast, slow = (
            d_head * math.log(number[LENGTH] / (2 * math.pi * number[turns])) / (2 * math.log(theta))
            for turns in ("beta_fast", "beta_slow")
        )
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), d_head - 1)
        kept = 1 - ((i - first) / (last - first or 0.001)).clamp(0, 1)
    return frequency * (kept + (1 - kept) / number["factor"])
