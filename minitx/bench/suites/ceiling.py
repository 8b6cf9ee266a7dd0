"""The suite `ceiling`: how fast the machine multiplies matrices and copies memory, and what share training reaches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from minitx.bench import steps
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.tables import Table, by_turns, raw_seconds
from minitx.fast.linear import onednn_product, takes_onednn
from minitx.model import Transformer
from minitx.model_size import matmul_flops_per_token
from minitx.system.runtime import Runtime
from minitx.system.timing import Candidate, Timed, alternate

SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192), "mps": (1024, 2048, 4096)}
"""Widths of square matrices on each kind of device; the best of them is the ceiling."""
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}
"""Bytes of a copy, beyond what a cache holds."""

PLAIN, ONEDNN = "torch.mm", "oneDNN"

Product = tuple[int, int, int]
"""(rows, inner, columns) of a product of two matrices."""


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """The machine's rates, then what share of them training reaches."""
    squares: dict[str, Product] = {
        f"{size} × {size} × {size}": (size, size, size) for size in SIZES[runtime.device.type]
    }
    found: dict[str, float] = {}
    table = Table(
        "ceiling, what the machine can do",
        ["what", "precision", "by", "best, GFLOP/s", "median, GFLOP/s"],
    )
    for dtype, by in ways(runtime.device):
        precision = str(dtype).removeprefix("torch.")
        products = {**squares, **{name: product for shape in shapes for name, product in products_of(shape).items()}}
        timed = multiply(settings, products, runtime.device, dtype, by)
        for name, product in products.items():
            table.rows.append(
                [name, precision, by, *(flops(product) / s / 1e9 for s in (timed[name].minimum, timed[name].median))]
            )
        best = max(flops(products[name]) / timed[name].minimum for name in squares)
        found[precision] = max(found.get(precision, 0), best)
        table.raw[f"{precision}, {by}"] = raw_seconds(timed)
    copied = copy_memory(settings, runtime.device, COPIED[runtime.device.type])
    moved = 2 * COPIED[runtime.device.type]
    table.raw["copy"] = raw_seconds({"copy": copied})
    table.notes.append(
        f"Copying memory: {moved / copied.minimum / 1e9:.1f} GB/s at best, {moved / copied.median / 1e9:.1f} in the "
        "middle (bytes read and bytes written)."
    )
    yield table
    yield utilisation(settings, shapes, runtime, found[str(runtime.dtype).removeprefix("torch.")])


def utilisation(settings: BenchConfig, shapes: list[Shape], runtime: Runtime, ceiling: float) -> Table:
    """minitx's training step at each shape in FLOP/s, beside the ceiling."""
    precision = str(runtime.dtype).removeprefix("torch.")
    table = Table(
        f"ceiling, share of it that training reaches · {precision}, {ceiling / 1e9:,.0f} GFLOP/s",
        ["shape", "MFLOP per token", "tokens/s, best", "GFLOP/s, best", "share of ceiling, %"],
        notes=["FLOPs are those of matrix products, three times the forward pass; the ceiling is the best square one."],
    )
    for shape in shapes:
        step = steps.build(steps.OURS, shape, runtime, seed=settings.seed)
        timed = by_turns(settings, {shape.name: step}, runtime.device, f"step {shape.name}")[shape.name]
        rate = shape.tokens_per_step / timed.minimum
        work = flops_per_token(shape)
        table.rows.append([shape.name, work / 1e6, rate, rate * work / 1e9, 100 * rate * work / ceiling])
        table.raw[shape.name] = raw_seconds({"step": timed})
    return table


def flops_per_token(shape: Shape) -> int:
    """Floating-point operations of the matrix products in one token's share of a training step."""
    with torch.device("meta"):
        model = Transformer(shape.model, shape.vocab_size)
    return 3 * matmul_flops_per_token(model, shape.model.context_length)


def products_of(shape: Shape) -> dict[str, Product]:
    """The products of a forward pass that take the most: into the feed-forward layer, and to the logits."""
    rows, width = shape.train.batch_size * shape.model.context_length, shape.model.d_model
    return {
        f"{shape.name}, feed-forward: {rows} × {width} × {shape.model.ff_width}": (rows, width, shape.model.ff_width),
        f"{shape.name}, logits: {rows} × {width} × {shape.vocab_size}": (rows, width, shape.vocab_size),
    }


def flops(product: Product) -> int:
    """A multiplication and an addition for each of the rows × inner × columns."""
    rows, inner, columns = product
    return 2 * rows * inner * columns


def ways(device: torch.device) -> list[tuple[torch.dtype, str]]:
    """Precisions, and what multiplies in them: in float32 also oneDNN, where minitx's linear layers take it."""
    large = torch.empty(1024, 1024, device=device)
    onednn = [(torch.float32, ONEDNN)] if takes_onednn(large, large) else []
    return [(torch.float32, PLAIN), *onednn, (torch.bfloat16, PLAIN)]


def multiply(
    settings: BenchConfig, products: dict[str, Product], device: torch.device, dtype: torch.dtype, by: str = PLAIN
) -> dict[str, Timed]:
    """Each product by turns, x Wᵀ as a linear layer has it; `PLAIN` into a matrix that is there already."""

    def candidate(product: Product) -> Candidate:
        rows, inner, columns = product
        x = torch.randn(rows, inner, device=device, dtype=dtype)
        weight = torch.randn(columns, inner, device=device, dtype=dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        return lambda: onednn_product(x, weight) if by == ONEDNN else torch.mm(x, weight.T, out=out)

    return by_turns(
        settings, {name: candidate(product) for name, product in products.items()}, device, f"products, {dtype}"
    )


def copy_memory(settings: BenchConfig, device: torch.device, size: int) -> Timed:
    """A copy of `size` bytes from one place of the device's memory to another."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return alternate(
        {"copy": lambda: target.copy_(source)},
        repeats=settings.repeats,
        seconds=settings.seconds / 4,
        device=device,
        label="copy",
    )["copy"]
