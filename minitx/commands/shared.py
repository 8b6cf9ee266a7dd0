"""What several verbs share: their options, the texts that they read and the pages that they write."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from minitx.data.words import spelled_out
from minitx.system.errors import UserError, require, require_bounds
from minitx.system.files import write_output
from minitx.system.text import warn

if TYPE_CHECKING:
    from minitx.data.tokenizer import Tokenizer

MAX_NAMED, MAX_LETTERS = 5, 24
"""Words that a warning names, and letters of one."""
MAX_SEEDS = 100
"""More are a seed, taken for their number."""


def run_parser(prog: str, description: str | None, newest: bool = False) -> ArgumentParser:
    """A parser that takes RUN and --checkpoint; newest: RUN may be left out."""
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    if newest:
        parser.add_argument("run", metavar="RUN", nargs="?", help="Run folder; by default the newest one.")
    else:
        parser.add_argument("run", metavar="RUN", help="Run folder.")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a step of the run.")
    return parser


def exclude(options: Any, name: str, *others: str) -> None:
    """Raise UserError if option `name` is given together with any of `others`."""
    given = [f"--{option}" for option in others if options[option] not in (None, False)]
    is_alone = options[name] in (None, False) or not given
    require(is_alone, f"Both --{name} and {', '.join(given)} are given: leave one out.")


def parse_list(text: str, pattern: str, complaint: str) -> list[str]:
    """The parts of a list with commas; raises UserError(complaint) unless all match `pattern` and none repeats."""
    parts = [part.strip() for part in text.split(",")]
    require(all(re.fullmatch(pattern, part) for part in parts) and len({*parts}) == len(parts), complaint)
    return parts


def add_seeds(parser: ArgumentParser) -> None:
    """Add the option --seeds of studies."""
    text = "How many seeds to train every model with: --seed, --seed + 1 and so on."
    parser.add_argument("--seeds", type=int, default=3, help=text)


def check_seeds(options: Any) -> None:
    """Raise UserError for a number of seeds that no study takes."""
    require_bounds(options, "--", "seeds", at_least=1)
    count = options.seeds
    require(
        count <= MAX_SEEDS,
        f"--seeds {count} asks for {count:,} seeds: for the seeds from {count} on, give --seed {count}.",
    )


def read_text(option: str, name: str) -> str:
    """The content of the UTF-8 file `name` that `option` asks for; raises UserError."""
    try:
        content = Path(name).read_bytes()  # a pipe will do: a person named it
    except OSError as error:
        raise UserError(f"{option} {name} cannot be read ({error.strerror}): name a text file in UTF-8.") from error
    return as_text(content, f"{option} {name}")


def as_text(content: bytes | str, origin: str) -> str:
    """`content` as text; raises UserError, which begins with `origin`, for what UTF-8 cannot hold."""
    try:
        return (content.encode() if isinstance(content, str) else content).decode()
    except UnicodeError as error:
        raise UserError(f"{origin} is not UTF-8 ({error}): convert it to UTF-8.") from error


def tell_spelled(tokenizer: Tokenizer, text: str) -> None:
    """Warn of the words of `text` that the tokenizer has no token for, unless it is one of characters."""
    pieces = map(tokenizer.token_bytes, range(tokenizer.vocab_size))
    if not any(len(piece.decode("utf-8", "replace").strip(" ")) > 1 for piece in pieces):
        return
    if words := spelled_out([tokenizer.token_bytes(token) for token in tokenizer.encode(text)]):
        named = ", ".join(shorten(word) for word in words[:MAX_NAMED]) + (" …" if len(words) > MAX_NAMED else "")
        warn(f"In this text the tokenizer has no token for {named}: the model reads them in small pieces.")


def shorten(word: str) -> str:
    """A word that a sentence has room for."""
    return word if len(word) <= MAX_LETTERS else word[: MAX_LETTERS - 1] + "…"


def write_page(name: str, html: str) -> None:
    """Write a page to the file `name` and say so; raises UserError where it cannot be written."""
    write_output(name, html.encode())
    print(f"page in {name}", file=sys.stderr)
