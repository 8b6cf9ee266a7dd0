"""The suite `ceiling`: how fast the machine multiplies matrices and copies memory, and training's share of that."""

import math
from collections.abc import Iterator

import torch

from minitx.bench import steps
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Row, Table
from minitx.fast.linear import onednn_product, takes_onednn
from minitx.model import Transformer
from minitx.model_size import matmul_flops_per_token
from minitx.system.timing import Candidate

SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192), "mps": (1024, 2048, 4096)}
"""Widths of square matrices by kind of device; the fastest is the ceiling."""
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}
"""Bytes of a copy, more than a cache holds."""
PLAIN, ONEDNN = "torch.mm", "oneDNN"

Product = tuple[int, int, int]
"""(rows, inner, columns) of a product of two matrices."""


def run(bench: Bench) -> Iterator[Table]:
    """The machine's rates, then training's share of them."""
    device, table = bench.runtime.device, Table("ceiling, what the machine can do")
    squares: dict[str, Product] = {f"{n} × {n} × {n}": (n, n, n) for n in SIZES[device.type]}
    products = squares | {name: product for shape in bench.shapes for name, product in products_of(shape).items()}
    ceiling = 0.0
    for precision, by in ways(device):
        candidates = {name: multiplication(product, device, precision, by) for name, product in products.items()}
        timed = bench.time(candidates, f"products, {precision}")
        for name, time in timed.items():
            work = flops(products[name]) / 1e9
            row: Row = {"what": name, "precision": precision, "by": by}
            row |= {"best, GFLOP/s": work / time.minimum, "median, GFLOP/s": work / time.median}
            table.rows.append(row)
        if precision == bench.runtime.precision:
            ceiling = max(ceiling, *(flops(product) / timed[name].minimum for name, product in squares.items()))
        table.add_seconds(f"{precision}, {by}", timed)
    source = torch.ones(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    copied = bench.time({"copy": lambda: target.copy_(source)}, "copy")
    best, median = (2 * source.nbytes / 1e9 / s for s in (copied["copy"].minimum, copied["copy"].median))
    table.notes = [f"Copying memory: {best:.1f} GB/s at best, {median:.1f} at the median (bytes read and written)."]
    table.add_seconds("copy", copied)
    yield table
    yield utilisation(bench, ceiling)


def utilisation(bench: Bench, ceiling: float) -> Table:
    """minitx's training step at every shape in FLOP/s, beside the ceiling."""
    rate_there = f"{bench.runtime.precision}, {ceiling / 1e9:,.0f} GFLOP/s"
    note = "FLOPs are those of matrix products, three times the forward pass; the ceiling is the best square one."
    table = Table(f"ceiling, share of it that training reaches · {rate_there}", notes=[note])
    for shape in bench.shapes:
        timed = bench.time({"step": steps.build(bench, steps.OURS, shape).step}, f"step {shape.name}")
        rate, work = shape.tokens_per_step / timed["step"].minimum, flops_per_token(shape)
        row: Row = {"shape": shape.name, "MFLOP per token": work / 1e6, "tokens/s, best": rate}
        row |= {"GFLOP/s, best": rate * work / 1e9, "share of ceiling, %": 100 * rate * work / ceiling}
        table.rows.append(row)
        table.add_seconds(shape.name, timed)
    return table


def flops_per_token(shape: Shape) -> int:
    """Floating-point operations of the matrix products in one token's share of a training step."""
    with torch.device("meta"):
        model = Transformer(shape.model, shape.vocab_size)
    return 3 * matmul_flops_per_token(model, shape.model.context_length)


def products_of(shape: Shape) -> dict[str, Product]:
    """The costliest products of a forward pass: into the feed-forward layer, and to the logits."""
    rows, width = shape.train.batch_size * shape.model.context_length, shape.model.d_model
    products = {"feed-forward": (rows, width, shape.model.ff_width), "logits": (rows, width, shape.vocab_size)}
    return {f"{shape.name}, {name}: {' × '.join(map(str, sizes))}": sizes for name, sizes in products.items()}


def flops(product: Product) -> int:
    """One multiplication and one addition for every one of rows × inner × columns."""
    return 2 * math.prod(product)


def ways(device: torch.device) -> list[tuple[str, str]]:
    """Precisions, and what multiplies in them: for float32 also oneDNN, if minitx's linear layers use it here."""
    large = torch.empty(1024, 1024, device=device)
    onednn = [("float32", ONEDNN)] if takes_onednn(large, large) else []
    return [("float32", PLAIN), *onednn, ("bfloat16", PLAIN)]


def multiplication(product: Product, device: torch.device, precision: str, by: str) -> Candidate:
    """x Wᵀ, as in a linear layer; `PLAIN` writes into an existing matrix."""
    rows, inner, columns = product
    dtype = getattr(torch, precision)
    x, weight = (torch.randn(size, inner, device=device, dtype=dtype) for size in (rows, columns))
    if by == ONEDNN:
        return lambda: onednn_product(x, weight)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    return lambda: torch.mm(x, weight.T, out=out)
