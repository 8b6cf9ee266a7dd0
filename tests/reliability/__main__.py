"""One command for every kind of harm."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Do one kind of harm, or every one."""
    import tests.reliability

    parser = argparse.ArgumentParser(description=tests.reliability.__doc__)
    parser.add_argument("kind", choices=["kills", "crashes", "damage", "disk", "long", "all"])
    parser.add_argument("--count", type=int, help="kills (30), crashes (every one), damages (500) or steps (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", help="the verbs to crash or to let read, such as train 'heads --html'")
    parser.add_argument(
        "--case", action="append", default=[], help="a damage to repeat, as printed: 'VERB | FILE | DAMAGE'"
    )
    parser.add_argument("--seconds", type=int, default=20, help="after which a verb that reads counts as hanging")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")  # before torch is imported

    from tests.reliability.crashes import crashes
    from tests.reliability.damage import damage
    from tests.reliability.disk import disks
    from tests.reliability.kills import kills
    from tests.reliability.long import long

    count, seed, verbs = options.count, options.seed, options.verbs
    damages = 500 if count is None else count
    kinds: dict[str, Callable[[Path], dict[str, Any]]] = {
        "crashes": lambda folder: crashes(folder, count, seed, verbs),
        "damage": lambda folder: damage(folder, damages, seed, verbs, options.case, options.seconds),
        "kills": lambda folder: dict(kills(folder, count or 30, seed)),
        "disk": disks,
        "long": lambda folder: long(folder, count or 10_000),
    }
    for kind in kinds if options.kind == "all" else [options.kind]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            result = kinds[kind](Path(name).resolve())
        print(json.dumps({kind: result}, ensure_ascii=False), flush=True)
        print(f"{kind}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
