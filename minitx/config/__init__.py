"""Every setting: its default, its check, and how YAML files and flags are read into it."""

from minitx.config.probes import Link, Probe
from minitx.config.settings import (
    Config,
    DataConfig,
    GenerateConfig,
    LogConfig,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "GenerateConfig",
    "Link",
    "LogConfig",
    "ModelConfig",
    "Probe",
    "TokenizerConfig",
    "TrainConfig",
]
