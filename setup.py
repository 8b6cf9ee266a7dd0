"""What pyproject.toml cannot say: the package has configs/, and an index shows the README without its own files."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/, which a checkout has beside the package, into it; an editable install needs no copy."""

    def build_package_data(self) -> None:
        super().build_package_data()
        self.copy_tree("configs", str(Path(self.build_lib, "minitx", "configs")))


def without_own_files(page: str) -> str:
    """A page without pictures, and without links, to files beside it: an index would show them broken."""
    page = re.sub(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+(\*[^*]+\*\n+)?", "", page, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", page)


setup(
    cmdclass={"build_py": BuildWithConfigs},
    long_description=without_own_files(Path("README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
