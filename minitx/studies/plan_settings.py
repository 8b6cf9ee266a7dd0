"""The settings of `minitx plan`, the only home of their defaults, and the tables of GPUs and networks."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from minitx.config import Config
from minitx.system.errors import UserError, require, require_bounds
from minitx.system.files import check_writable


class GPU(NamedTuple):
    """What a GPU does at most, in operations and bytes per second, and what it holds."""

    bfloat16: float
    float32: float
    """Operations per second of dense matrix products, without TF32, which minitx leaves off."""
    memory: float
    memory_rate: float
    link_rate: float
    """Bytes per second that it sends to the others in its machine; it receives as many at once."""
    link_latency: float
    """Seconds from one GPU of a machine to the next."""


NVLINK, PCIE, NETWORK, START = 3.4e-6, 5.7e-6, 14e-6, 8.4e-6
"""Seconds of a hop between GPUs of a machine and between machines, and to start a collective: those of a ring with the
protocol Simple in NCCL's own model, hwLatencies and baseLatencies in src/graph/tuning.cc."""
GPUS = {
    "h100": GPU(989.4e12, 66.9e12, 80e9, 3.35e12, 450e9, NVLINK),  # NVIDIA H100 SXM data sheet; NVLink 900 both ways
    "h200": GPU(989.4e12, 66.9e12, 141e9, 4.8e12, 450e9, NVLINK),  # NVIDIA H200 SXM data sheet
    "a100": GPU(312e12, 19.5e12, 80e9, 2.04e12, 300e9, NVLINK),  # NVIDIA A100 80GB SXM data sheet; NVLink 600 both ways
    "rtx4090": GPU(165.2e12, 82.6e12, 24e9, 1.01e12, 31.5e9, PCIE),  # NVIDIA Ada white paper, app. A; PCIe 4.0 × 16
}
NETWORKS = {"infiniband": (50e9, math.inf), "ethernet": (math.inf, 12.5e9)}
"""Bytes per second for each GPU and for the whole machine: an adapter of 400 Gbit/s per GPU, or one of 100 for all."""


@dataclass(frozen=True)
class PlanConfig(Config):
    """Say what training with many processes would need and take, without running it. Takes every setting of train."""

    processes: str = "8"
    """Numbers of processes, one GPU each, with commas. Each must divide the rows of an update."""
    gpu: Literal["h100", "h200", "a100", "rtx4090"] = "h100"
    """Kind of GPU."""
    per_machine: int = 8
    """GPUs in a machine."""
    network: Literal["infiniband", "ethernet"] = "infiniband"
    """Between machines: infiniband has 400 Gbit/s for each GPU, ethernet 100 Gbit/s for each machine."""
    compute_share: float = 0.4
    """Share of the GPU's peak that matrix products reach; Llama 3 (2024, table 4) reports 0.38 to 0.43."""
    network_share: float = 0.8
    """Share of the rated bandwidth that a collective reaches."""
    memory_share: float = 0.9
    """Share of the GPU's memory that tensors may take; the rest is for CUDA and for gaps."""
    launch: float = 5e-6
    """Seconds to start a GPU operation. A step takes no less than this for each of its operations."""
    lean: bool = False
    """Count what minitx could do, not what it does: Muon's parts are not filled up. Sharded, weights travel in the
    precision of products, gradients are scattered after every part of the rows, a matrix is gathered in one process
    alone, and no process holds whole weights or states."""
    overlap: bool = True
    """Whether sharded weights and gradients travel while blocks compute, as on CUDA."""
    disk: float = 2e9
    """Bytes per second at which one process writes a checkpoint."""
    pays: float = 1.5
    """Twice the processes pay as long as they make a step this much quicker."""
    json: str | None = None
    """File for all figures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounds(self, "", "per_machine", at_least=1)
        require_bounds(self, "", "compute_share network_share memory_share", above=0, at_most=1)
        require_bounds(self, "", "launch", at_least=0, below=math.inf)
        require_bounds(self, "", "disk pays", above=0, below=math.inf)
        plain = self.model.attention == "multi_head" and self.model.kept_heads is None and not self.model.tricks
        require(plain, "plan counts plain multi-head attention: leave out model.attention, kept_heads and tricks.")
        require(self.tokenizer.vocab_size is not None, "plan needs tokenizer.vocab_size: give a number.")
        for count in self.counts:
            require(
                self.rows % count == 0,
                f"{count} processes cannot share train.batch_size {self.train.batch_size} × train.grad_accum "
                f"{self.train.grad_accum} = {self.rows} rows evenly: take another number, or more rows.",
            )
        if self.json is not None:
            check_writable(self.json)

    @property
    def counts(self) -> list[int]:
        """The numbers in `processes`; raises UserError for other text."""
        names = [name.strip() for name in self.processes.split(",") if name.strip()]
        if not names or not all(name.isdecimal() and 0 < int(name) <= 1 << 20 for name in names):
            raise UserError(f"processes is {self.processes!r}, but it takes numbers with commas, such as 8,64,512.")
        return [int(name) for name in names]

    @property
    def rows(self) -> int:
        """Sequences of an update, over all processes."""
        return self.train.batch_size * self.train.grad_accum

    @property
    def vocab_size(self) -> int:
        """As the tokenizer's, for a model without one."""
        return self.tokenizer.vocab_size or 1

    @property
    def width(self) -> int:
        """Bytes of a number in matrix products: those of bfloat16, unless `dtype` is float32."""
        return 4 if self.dtype == "float32" else 2

    @property
    def gather_width(self) -> int:
        """Bytes of a number in gathered weights."""
        return self.width if self.lean else 4
