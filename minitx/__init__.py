"""minitx: a tiny decoder-only transformer whose attention heads can be watched while they learn.

As a library (docs/library.md): each name below is imported when it is first used, so `import minitx` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitx.config import Config, DataConfig, LogConfig, ModelConfig, ParallelConfig, TokenizerConfig, TrainConfig
    from minitx.interop.attention_logger import AttentionLogger
    from minitx.library.cell import Page
    from minitx.library.loaded_run import LoadedRun, load, read_config, train
    from minitx.library.looking import Look, measure_heads, record, score_heads, show, write_snapshot
    from minitx.system.errors import UserError

__version__ = "0.1.0"
__all__ = ["AttentionLogger", "LoadedRun", "Look", "Page", "UserError", "load", "measure_heads", "read_config"]
__all__ += ["record", "score_heads", "show", "train", "write_snapshot"]
__all__ += ["Config", "DataConfig", "LogConfig", "ModelConfig", "ParallelConfig", "TokenizerConfig", "TrainConfig"]
HOMES = ("config", "system.errors", "library.cell", "library.loaded_run", "library.looking", "interop.attention_logger")

if not TYPE_CHECKING:  # a type checker would take every name for one that is here

    def __getattr__(name: str) -> object:
        """Import a name of `__all__`; settings and errors come without torch."""
        if name in __all__:
            for home in HOMES:
                if hasattr(module := import_module(f"minitx.{home}"), name):
                    return getattr(module, name)
        raise AttributeError(f"module 'minitx' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
