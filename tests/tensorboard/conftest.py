"""What the tests of the tab share: a browser, and TensorBoard on the `logs` of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tensorboard.browser import chromium


@pytest.fixture(scope="module")
def server(logs: Path) -> Iterator[str]:
    from tests.tensorboard.test_tab import tensorboard

    with tensorboard(logs) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running
