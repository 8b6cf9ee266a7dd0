"""Makes the pictures of the Attention tab in README and docs anew, from runs that are trained already.

    python train.py --config configs/induction.yaml     runs/induction
    python train.py --config configs/tales.yaml         runs/tales
    python docs/pictures.py [--logdir runs] [FILE …]    all pictures, or those named; under three minutes

A picture is a line of PICTURES: its file, the run, the view as Link gives it, and the size of the window. A .gif
and a .svg are what the tab itself saves; a .png is a photograph of the screen. Needs Chromium and the Python package
playwright, as the tests of the tab do.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from tests.tensorboard.browser import Page, chromium  # noqa: E402  # the line above lets it be found
from tests.tensorboard.test_tab import frame, tensorboard  # noqa: E402


class Picture(NamedTuple):
    """A file in docs/ and what it shows."""

    file: str
    run: str
    link: str
    size: tuple[int, int]
    dark: bool = False


SENTENCE = "view=sentence&head=7&shown=4.5.6.7&token=35.&score=tales_place"
PICTURES = [
    Picture("attention_tab.gif", "tales", SENTENCE, (1100, 760)),
    Picture("tab_sentence.png", "tales", SENTENCE, (1280, 800)),
    Picture("tab_what_if.png", "tales", "view=what_if&head=7&off=7&token=35.&score=tales_place", (1280, 800)),
    Picture("tab_writes.png", "induction", "view=writes&head=6&token=11.&score=induction_on_repeats", (1280, 800)),
    Picture(
        "tab_scatter.png",
        "induction",
        "view=scatter&head=6&score=induction_on_repeats&scatter=distance.induction_on_repeats",
        (1280, 800),
    ),
    Picture("tab_blocks.png", "tales", "view=blocks&head=7&token=35.&score=tales_place", (1280, 800)),
]


def draw(browser: Any, address: str, picture: Picture) -> None:
    """Open the view of a picture and write its file."""
    width, height = picture.size
    link = frame(address, f"run={picture.run}&{picture.link}")
    with Page(browser, link, width=width, height=height, dark=picture.dark) as page:
        page.wait("Number(document.body.dataset.drawn) > 0 && !document.body.matches('.busy, .empty')")
        fault = page.tab.locator(".fault").text_content()
        if fault or page.errors:
            raise SystemExit(f"{picture.file}: {fault or page.errors[0]}")
        kind = picture.file.rpartition(".")[2]
        if kind == "png":
            page.tab.screenshot(path=DOCS / picture.file)
        else:
            shutil.copyfile(page.save(kind.upper()), DOCS / picture.file)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="which pictures; all if none is named")
    parser.add_argument("--logdir", type=Path, default=Path("runs"), help="the folder of the runs (runs)")
    arguments = parser.parse_args()
    names = [picture.file for picture in PICTURES]
    if unknown := set(arguments.files) - set(names):
        raise SystemExit(f"There is no picture {', '.join(sorted(unknown))}: there are {', '.join(names)}.")
    wanted = [picture for picture in PICTURES if picture.file in (arguments.files or names)]
    logs = arguments.logdir.resolve()
    if missing := {picture.run for picture in wanted} - {folder.parent.name for folder in logs.glob("*/attention")}:
        raise SystemExit(f"{logs} has no run {', '.join(sorted(missing))} with snapshots: train it first (see --help).")
    with tensorboard(logs) as address, chromium() as browser:
        for picture in wanted:
            started = time.monotonic()
            draw(browser, address, picture)
            size = (DOCS / picture.file).stat().st_size / 1000
            print(f"{picture.file}: {size:,.0f} kB in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
