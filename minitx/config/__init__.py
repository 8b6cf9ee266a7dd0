"""All settings: their defaults, their checks, and how YAML files and flags are read into them."""

from minitx.config.model import ModelConfig
from minitx.config.probes import Link, Probe
from minitx.config.settings import (
    Config,
    DataConfig,
    GenerateConfig,
    LogConfig,
    ParallelConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = ["Config", "DataConfig", "GenerateConfig", "Link", "LogConfig", "ModelConfig", "Probe"]
__all__ += ["ParallelConfig", "TokenizerConfig", "TrainConfig"]
