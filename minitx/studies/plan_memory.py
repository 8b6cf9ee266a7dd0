"""Memory of a process in training, counted from the shapes: what stays, what a forward and backward pass adds.

Counted for the uncompiled program on a GPU; torch.compile keeps less. Dropout's masks are left out.
"""

import math
from typing import NamedTuple

from minitx.config import ModelConfig
from minitx.model_size import parameter_count
from minitx.studies.plan_settings import PlanConfig

BUCKET = 1 << 23
"""Numbers that one all-reduce takes at once, if no parameter has more."""
STEPS = 3
"""Steps of Muon's iteration."""


class Mode(NamedTuple):
    """How processes share a run: all hold everything, or a part of it; blocks may be computed twice."""

    name: str
    shards: bool
    recomputes: bool


MODES = [
    Mode("data parallel", False, False),
    Mode("sharded", True, False),
    Mode("sharded, activations recomputed", True, True),
]


class Stack(NamedTuple):
    """Matrices of one shape that Muon makes orthogonal together, in `blocks` of (rows, columns)."""

    blocks: int
    rows: int
    columns: int
    matrices: int

    def numbers(self, processes: int = 1) -> int:
        """Of the part of one process, rounded up to whole blocks."""
        return math.ceil(self.blocks / processes) * self.rows * self.columns

    def flops(self, processes: int) -> int:
        """To make that part orthogonal: each step has three products, x xᵀ and its square (r² c and r³) and p(x xᵀ) x.

        Jordan et al. 2024, with r the shorter and c the longer side; 2 for each multiplication and addition.
        """
        short, long = sorted((self.rows, self.columns))
        return math.ceil(self.blocks / processes) * STEPS * 2 * (2 * short**2 * long + short**3)


def block_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The parameters of one block."""
    width, keys, inner = model.d_model, model.kv_heads * model.d_head, model.ff_width
    shapes: dict[str, tuple[int, ...]] = {"query": (width, width), "key": (keys, width), "value": (keys, width)}
    shapes |= {"output": (width, width), "gate": (inner, width), "up": (inner, width), "down": (width, inner)}
    shapes |= {"attention_norm": (width,), "feed_forward_norm": (width,)}
    return shapes | ({"query_norm": (model.d_head,), "key_norm": (model.d_head,)} if model.qk_norm else {})


def outer_shapes(model: ModelConfig, vocab_size: int) -> list[tuple[int, ...]]:
    """The parameters outside the blocks."""
    return [(vocab_size, model.d_model)] * (1 if model.tie_embeddings else 2) + [(model.d_model,)]


def numbers(shapes: list[tuple[int, ...]], processes: int = 1) -> int:
    """Of parameters whose rows are dealt to processes: each gets as many, so the last rows may be padding."""
    return sum(math.ceil(shape[0] / processes) * processes * math.prod(shape[1:]) for shape in shapes)


def group_numbers(settings: PlanConfig, processes: int) -> tuple[int, int]:
    """Numbers in what `fully_shard` gathers at once: a block, and all that is in no block."""
    model = settings.model
    outer = numbers(outer_shapes(model, settings.vocab_size), processes)
    return numbers(list(block_shapes(model).values()), processes), outer


def stacks(settings: PlanConfig) -> list[Stack]:
    """What Muon trains: the blocks' matrices by shape, queries and keys head by head; none with AdamW."""
    if settings.train.optimizer != "muon":
        return []
    model, counts = settings.model, dict[tuple[int, int, int], int]()
    for name, shape in block_shapes(model).items():
        if len(shape) == 2:
            kind = (*shape, model.d_head if name in ("query", "key") else shape[0])
            counts[kind] = counts.get(kind, 0) + model.n_layer
    return [Stack(count * rows // height, height, columns, count) for (rows, columns, height), count in counts.items()]


def block_activations(model: ModelConfig, width: int) -> int:
    """Bytes per token that autograd keeps of one block, with matrix products of `width` bytes per number.

    Korthikanti et al. 2022, section 4.1, for this block: inputs of both norms in float32; what enters the projections;
    queries, keys, values and output of attention, whose kernel keeps no pattern (Dao et al. 2022); four vectors of
    SwiGLU. Query-key norm keeps its input in float32. Each normalised vector has its inverse length, in float32.
    """
    keys, inner, heads = model.kv_heads * model.d_head, model.ff_width, model.n_head
    norms = 2 * 4 * (model.d_model + 1) + width * 2 * model.d_model
    attention = width * (2 * model.d_model + 2 * keys) + 4 * heads
    query_key = 4 * (model.d_model + keys + heads + model.kv_heads) if model.qk_norm else 0
    return norms + attention + query_key + 4 * width * inner


def kept_activations(model: ModelConfig, width: int, rows: int, recomputes: bool) -> int:
    """Bytes that autograd keeps of a forward pass of `rows` sequences, without the loss and copies of weights.

    recomputes: of every block only its input, in float32 (Chen et al. 2016).
    """
    tokens = rows * model.context_length
    ends = tokens * (8 + 4 * (model.d_model + 1) + width * model.d_model)  # token numbers, final norm
    if recomputes:
        return model.n_layer * tokens * 4 * model.d_model + ends
    tables = 2 * width * model.context_length * (model.d_model + model.kv_heads * model.d_head)  # cosines, sines
    return model.n_layer * (tokens * block_activations(model, width) + tables) + ends


def loss_bytes(vocab_size: int, tokens: int) -> int:
    """Bytes at the peak of the loss: log-probabilities, their gradient and that of the logits, all in float32."""
    return 3 * 4 * vocab_size * tokens


def memory(settings: PlanConfig, mode: Mode, processes: int) -> dict[str, float]:
    """Bytes of the first process, which has most, by part; "in all" is the worst moment of passes, update and saving.

    Sharded (Rajbhandari et al. 2020, ZeRO stage 3; Zhao et al. 2023, FSDP), a process keeps a share of everything. But
    unless `lean`, the first process has a whole copy of the weights, and for saving each has the whole optimizer
    state. "at work" is the loss, or a block on its way back, whichever takes more with what is gathered then.
    Gradients count in every pass, though the first fills them.
    """
    model, width, share = settings.model, settings.width, processes if mode.shards else 1
    block, outer = group_numbers(settings, share)
    whole, by_muon = model.n_layer * block + outer, sum(stack.numbers() for stack in stacks(settings))
    rows, sharded, extra = part_rows(settings, processes), share > 1, share > 1 and not settings.lean
    held = {
        "weights": 4 * whole / share,
        "whole copy": 4 * whole * extra,
        "AdamW": 8 * (whole - by_muon) / share,
        "Muon": 4 * by_muon / share,
    }
    averaged = 4 * whole * (settings.train.average_fraction > 0)
    held |= {"mean of weights": averaged / share} if averaged else {}
    autocast = width == 2 and not (sharded and settings.gather_width == 2)
    copies = 2 * matrix_numbers(settings) * autocast / (model.n_layer if mode.recomputes else 1)
    again = block_activations(model, width) if mode.recomputes else 0
    flowing = 8 * model.d_model + width * model.ff_width  # gradients of the residual and inside the block
    at_loss, at_block = gathered_bytes(settings, processes) if sharded else (0, 0)
    loss = loss_bytes(settings.vocab_size, rows * model.context_length)
    moments = [(at_loss, loss), (at_block, rows * model.context_length * (again + flowing))]
    gathered, work = max(moments, key=sum)
    passes = {"gradients": 4 * whole / share, "bfloat16 weights": copies, "gathered": gathered}
    passes |= {"activations": kept_activations(model, width, rows, mode.recomputes), "at work": work}
    update = 4 * whole / share + update_bytes(settings, mode, processes)
    saving = (8 * whole - 4 * by_muon + averaged) * extra
    in_all = sum(held.values()) + max(sum(passes.values()), update, saving)
    return held | passes | {"update": update, "saving": saving, "in all": in_all}


def gathered_bytes(settings: PlanConfig, processes: int) -> tuple[int, int]:
    """Bytes that a sharded process has beside its shares: at the loss, and when a block goes back.

    What is in no block is gathered throughout. On its way back a block has its weights and the next one's, and its
    gradients in float32 to be sent, and in the precision of gathered weights too. That of the output matrix waits for
    the end.
    """
    (block, outer), width = group_numbers(settings, processes), settings.gather_width
    fresh = block + settings.vocab_size * settings.model.d_model
    return width * outer, width * (outer + 2 * block + fresh) + 4 * block


def matrix_numbers(settings: PlanConfig) -> int:
    """Numbers of all matrices that multiply: those of the blocks and the output's."""
    blocks = sum(math.prod(shape) for shape in block_shapes(settings.model).values() if len(shape) == 2)
    return settings.model.n_layer * blocks + settings.vocab_size * settings.model.d_model


def update_bytes(settings: PlanConfig, mode: Mode, processes: int) -> float:
    """Bytes beside the gradients at the peak of an update: of the reduction, or of Muon's largest stack.

    Muon holds gradients looked ahead, for which shards are gathered, and the same stacked. Then it iterates on its part
    with two such parts and two squares. Or it gathers all parts, each filled up to as many blocks as the others
    have (of fewer blocks than processes, it adds all up), and takes them to float32. In `lean` sharded training it
    sees its own part alone.
    """
    model, sharded, width = settings.model, mode.shards and processes > 1, settings.width
    largest = min(max(BUCKET, settings.vocab_size * model.d_model), parameter_count(model, settings.vocab_size))
    needs = [4.0 * largest if processes > 1 and not sharded else 0.0]
    for stack in stacks(settings):
        part = stack.numbers(processes)
        whole = part if sharded and settings.lean else stack.numbers()
        copy = 2 * whole if width == 2 else 0
        iterated = 2 * width * part * (1 + min(stack.rows, stack.columns) / max(stack.rows, stack.columns))
        handed = whole + part if stack.blocks < processes else (processes + 2) * part
        gathered = width * (whole if settings.lean or processes == 1 else handed)
        ahead = 4 * stack.numbers() / (processes if sharded else 1)
        made = max(copy + iterated, gathered + 2 * copy, 4 * whole * sharded)
        needs.append(ahead + 4 * whole + made)
    return max(needs)


def part_rows(settings: PlanConfig, processes: int) -> int:
    """Sequences in one forward pass of a process: at most `batch_size`."""
    own = settings.rows // processes
    return math.ceil(own / parts_of(settings, processes))


def parts_of(settings: PlanConfig, processes: int) -> int:
    """Forward passes of a process for one update."""
    return math.ceil(settings.rows // processes / settings.train.batch_size)
