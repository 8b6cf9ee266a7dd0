"""The configurations that come with minitx, which `--config` takes by name: configs/ of a checkout or of the wheel."""

from pathlib import Path

from minitx.system.errors import nearest, require

PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "configs"
"""Where setup.py puts them in a wheel; a checkout has them beside the package."""
CONFIGS = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """The names of the shipped configurations, in order."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The configuration file `name`; without such a file, the shipped configuration of this name.

    Raises UserError if neither exists.
    """
    file, known = Path(name), config_names()
    if name in known and not file.is_file():
        return CONFIGS / f"{name}.yaml"
    hint = f"{nearest(file.stem.lower(), known)}: give a YAML file, or one of {', '.join(known)}."
    require(file.is_file(), f"There is no configuration {name}{hint}")
    return file


def summary(file: Path) -> str:
    """What a configuration file says of itself: its first comment, without the #."""
    first = file.read_text("utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
