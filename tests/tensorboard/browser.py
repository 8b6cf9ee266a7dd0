"""A headless Chromium for tests. Without one, `needs_browser` skips a test and says why."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T", bound=Callable[..., object])

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
HAS_PLAYWRIGHT = importlib.util.find_spec("playwright") is not None
REASON = "needs Chromium on the path" if CHROMIUM is None else "needs the Python package playwright"
IN_BROWSER = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None or not HAS_PLAYWRIGHT, reason=REASON)]
"""The marks of a module whose tests all need the browser."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = int(os.environ.get("MINITX_SLOW", "90000"))
"""Milliseconds that anything may take on a busy machine."""


def needs_browser(test: T) -> T:
    """The same for one test."""
    for mark in IN_BROWSER:
        test = mark(test)
    return test


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, one for all tests of this process: starting one takes seconds."""
    yield _started()


@functools.cache
def _started() -> Any:
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=SLOW)


class Page:
    """A tab of the browser that remembers what went wrong in it and what it asked for from elsewhere."""

    def __init__(self, browser: Any, address: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(SLOW)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(address)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        if (folder := os.environ.get("MINITX_SCREENSHOTS")) and exception[0] is not None:
            self.tab.screenshot(path=f"{folder}/failed.png")
        self.context.close()

    def save(self, kind: str) -> Path:
        """The file that the menu Save makes: "PNG", "SVG", "GIF" or "HTML"."""
        self.tab.locator("button", has_text="Save").click()
        with self.tab.expect_download(timeout=SLOW) as saved:
            self.tab.locator(".menu button", has_text=kind).click()
        return Path(saved.value.path())

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        self.tab.wait_for_function(condition)
