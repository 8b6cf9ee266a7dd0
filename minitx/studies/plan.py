"""`minitx plan`: what training with many processes would need and take, in every mode, and which one to choose."""

import json
from typing import Any

from minitx.model_size import parameter_count
from minitx.studies.plan_memory import MODES, Mode, memory
from minitx.studies.plan_settings import GPUS, PlanConfig
from minitx.studies.plan_time import seconds, step_flops
from minitx.system.files import write_output


def plan(settings: PlanConfig, command: str) -> dict[str, Any]:
    """All figures: of the run, and of every number of processes and mode; seconds and bytes of one process."""
    cases = [case(settings, mode, processes) for processes in settings.counts for mode in MODES]
    tokens = settings.rows * settings.model.context_length
    about = {
        "parameters": parameter_count(settings.model, settings.vocab_size),
        "tokens per step": tokens,
        "operations per step": step_flops(settings),
        "bytes for tensors": usable_memory(settings),
    }
    content = {"command": command, **about, "cases": cases}
    if settings.json is not None:
        write_output(settings.json, (json.dumps(content, indent=1) + "\n").encode())
    return content


def case(settings: PlanConfig, mode: Mode, processes: int) -> dict[str, Any]:
    """Figures of one mode at one number of processes.

    efficiency: the time of one process of data parallel training with endless memory, over N times that of N.
    """
    alone, parts = seconds(settings, MODES[0], 1)["in all"], seconds(settings, mode, processes)
    needs = memory(settings, mode, processes)
    return {
        "processes": processes,
        "mode": mode.name,
        "fits": needs["in all"] <= usable_memory(settings),
        "memory": needs,
        "seconds": parts,
        "efficiency": alone / (processes * parts["in all"]),
        "pays up to": pays_up_to(settings, mode),
    }


def usable_memory(settings: PlanConfig) -> float:
    """Bytes of a GPU that tensors may take."""
    return GPUS[settings.gpu].memory * settings.memory_share


def pays_up_to(settings: PlanConfig, mode: Mode) -> int:
    """The number of processes, doubled from one, that last made a step `pays` times as quick; rows must be enough."""
    processes, now = 1, seconds(settings, mode, 1)["in all"]
    while settings.rows % (2 * processes) == 0:
        then = seconds(settings, mode, 2 * processes)["in all"]
        if now < settings.pays * then:
            break
        processes, now = 2 * processes, then
    return processes
