"""Watch the heads of a model of `transformers` in the Attention tab while any program trains it.

    logger = minitx.AttentionLogger("runs/theirs")
    logger(model, tokenizer, step)                              # in a loop, or
    Trainer(..., callbacks=[logger.callback(every=100)])

A call copies the weights into a model of minitx on the CPU and writes a snapshot. The model, its training and all
random numbers stay as they were.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from minitx.config import LogConfig
from minitx.config.probes import ProbeSetting
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.heads import snapshots
from minitx.interop.hf_import import fill, imported_config, require_fit
from minitx.interop.hf_weights import in_memory
from minitx.interop.series import head_snapshot
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.exits import sentence
from minitx.system.text import warn

MAX_CONTEXT = 1024
"""Tokens of a probe that are shown at most."""
ORIGIN = "the model in memory"


class AttentionLogger:
    """Logs the heads of models of Llama's or Qwen3's architecture into a folder that TensorBoard shows.

    probes: texts whose patterns are shown, as in log.probes; by default those of minitx.
    text: what heads are scored on; by default small tales.

    What minitx cannot hold is refused by its name once, in a warning. Then calls do nothing, and training goes on.
    Raises UserError for the folder of a trained run, and for no probe.
    """

    def __init__(
        self, logdir: str | Path, probes: Sequence[str | ProbeSetting] | None = None, text: str | None = None
    ) -> None:
        self.path, self.text = snapshots.own_folder(logdir), text
        require(probes is None or len(probes) > 0, "There is no text to show: give at least one.")
        probes = [probes] if isinstance(probes, str) else probes
        self.probes = (LogConfig() if probes is None else LogConfig(probes=[*probes])).read_probes()
        self.refusal: str | None = None
        self.step: int | None = None
        self._copy: tuple[Transformer, JsonTokenizer] | None = None

    def __call__(self, model: Any, tokenizer: Any, step: int) -> None:
        """Write the snapshot of `step` of a model, perhaps compiled or wrapped, with its fast tokenizer."""
        if self.refusal is not None:
            return
        try:
            step = snapshots.whole_step(step)
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                content = self._snapshot(model, tokenizer, step)
            (self.path / snapshots.FOLDER).mkdir(parents=True, exist_ok=True)
            snapshots.write(self.path, step, content)
            self.step = step
        except (UserError, OSError) as error:
            self.refusal = sentence(error) if isinstance(error, OSError) else str(error)
            warn(f"No heads are logged to {self.path} from step {step} on. {self.refusal}")

    def _snapshot(self, model: Any, tokenizer: Any, step: int) -> bytes:
        require(hasattr(model, "state_dict"), f"A {type(model).__name__} came where the model should be.")
        for wrapper in ("_orig_mod", "module"):  # torch.compile, then several processes
            model = getattr(model, wrapper, model)
        weights = in_memory(model.state_dict(), ORIGIN)
        if self._copy is None:
            config, vocab_size = imported_config(model.config.to_dict(), ORIGIN, MAX_CONTEXT)
            require_fit(config, vocab_size, weights)
            self._copy = Transformer(config, vocab_size).eval(), in_minitx(tokenizer, model, vocab_size)
        fill(self._copy[0], weights)
        return head_snapshot(*self._copy, step, self.probes, self.text, snapshots.run_id(self.path) or "")

    def callback(self, every: int = 100, tokenizer: Any = None) -> Any:
        """A callback for the Trainer of transformers: a snapshot every so many steps, at the start and at the end.

        tokenizer: by default the `processing_class` of the Trainer.
        """
        require(snapshots.whole_step(every) > 0, "every is 0: give 1 or more steps.")
        from transformers import TrainerCallback

        def log(state: Any, known: dict[str, Any]) -> None:
            if state.is_world_process_zero and self.step != state.global_step:
                self(known["model"], tokenizer or known.get("processing_class"), state.global_step)

        class Callback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
            def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
                log(state, known)

            def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
                if state.global_step % every == 0:
                    log(state, known)

            def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
                log(state, known)

        return Callback()


def in_minitx(tokenizer: Any, model: Any, vocab_size: int) -> JsonTokenizer:
    """The tokenizer of minitx with the same ids; raises UserError for one that is not of the library tokenizers."""
    library: Any = getattr(tokenizer, "backend_tokenizer", None)
    needs = "a fast tokenizer of transformers: give it, in the Trainer as processing_class"
    require(library is not None, f"AttentionLogger needs {needs}.")
    ends = [tokenizer.eos_token_id, model.config.eos_token_id, 0]
    end = next(end for end in ends if isinstance(end, int) and 0 <= end < vocab_size)
    return JsonTokenizer(library.to_str().encode(), end, vocab_size, "The tokenizer in memory")
