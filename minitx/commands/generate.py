"""`generate.py`: write text with a trained model, on the terminal or as JSON.

Standard output gets the text alone, all notices go to standard error. Nothing heavy is imported before the options are
parsed and the prompt is read, so that `--help` and a wrong option are answered at once.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minitx.commands.shared import as_text, exclude, read_text, tell_spelled, write_page
from minitx.config import GenerateConfig
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import UserError, require
from minitx.system.files import check_page_name, step_of
from minitx.system.program import refuse_torchrun
from minitx.system.text import visible
from minitx.tensorboard.plugin.page import page

if TYPE_CHECKING:
    from minitx.generation.decoder import Decoder
    from minitx.generation.generate import Completion
    from minitx.model import Transformer

    Complete = Callable[[str | None, Callable[[int, str], None] | None], list[Completion]]

JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that the json module leaves as they are, and their escapes."""


def main(arguments: Sequence[str] | None = None, prog: str = "generate.py") -> int:
    """Generate as the command line says; return the exit status."""
    refuse_torchrun(prog)
    options, flags = parse_generate(sys.argv[1:] if arguments is None else arguments, prog)
    exclude(flags, "interactive", "json", "attention", "prompt", "prompt_file")
    if flags.attention is not None:
        check_page_name(flags.attention)
    prompt = read_prompt(options)
    if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8 everywhere
        sys.stdout.reconfigure(encoding="utf-8" if flags.json else None, errors="replace")

    import torch

    from minitx.generation.generate import complete
    from minitx.run.folder import Run
    from minitx.system.runtime import choose_device, choose_dtype, choose_threads

    torch.set_num_threads(choose_threads("auto")[0])
    run = Run.find(flags.run)
    device, reason = choose_device(options.device)
    precision = "float32" if options.dtype == "auto" and device.type == "cpu" else options.dtype
    model, checkpoint = run.load_model(options.checkpoint, device)
    model.to(choose_dtype(precision, device)[0])
    tokenizer = run.tokenizer()
    if flags.run is None or sys.stderr.isatty():
        print(f"{run.path}, {checkpoint}, on {device} ({reason})", file=sys.stderr)
    decoder = compiled_decoder(model, options) if options.compile and options.max_new_tokens > 1 else None

    def complete_prompt(text: str | None, on_text: Callable[[int, str], None] | None) -> list[Completion]:
        tell_spelled(tokenizer, text or "")
        try:
            return complete(model, tokenizer, text, options, on_text, decoder)
        except FloatingPointError as error:
            raise UserError(
                f"The model of {run.path}, {checkpoint}, gives logits that are not finite, so its training failed: "
                "try another --checkpoint, or train again with a lower learning rate."
            ) from error

    if flags.interactive:
        return ask(complete_prompt, options, flags)
    completions = show(complete_prompt, prompt, options, flags)
    if flags.attention is not None:
        from minitx.heads.view import text_snapshot

        start = [tokenizer.end_of_document] if prompt is None else tokenizer.encode(prompt)
        texts = []
        for text in (completion.completion for completion in completions):
            tokens = [*start, *tokenizer.encode_batch([text.encode()])[0].tolist()][-model.config.context_length :]
            texts.append((f"{prompt or ''}{text}", tokens))
        snapshot = text_snapshot(model.float(), tokenizer, texts, step_of(checkpoint))
        write_page(flags.attention, page([snapshot], title=run.path.name))
    return 0


def compiled_decoder(model: Transformer, options: GenerateConfig) -> Decoder | None:
    """The decoder of all prompts, compiled before any text is timed; prints why if this model cannot be compiled."""
    from minitx.generation.compiled_decoder import CompiledDecoder
    from minitx.generation.generate import warm_decoder

    if reason := CompiledDecoder.why_not(model, options.num_samples):
        print(f"Not compiled: {reason}.", file=sys.stderr)
    elif sys.stderr.isatty():
        print("Compiling, which takes some seconds …", file=sys.stderr)
    return warm_decoder(model, options)


def read_prompt(options: GenerateConfig) -> str | None:
    """The prompt of the command line, a file or standard input, without a byte order mark; None without a prompt.

    Raises UserError if it cannot be read, is empty or is not UTF-8.
    """
    if options.prompt_file is not None:
        prompt = read_text("--prompt_file", options.prompt_file)
    elif options.prompt == "-":
        prompt = as_text(sys.stdin.buffer.read(), "The prompt on standard input")
    else:
        return None if options.prompt is None else as_text(options.prompt, "The prompt")
    prompt = prompt.removeprefix("\ufeff")
    require(prompt != "", f"The prompt in {options.prompt_file or 'standard input'} is empty: give some text.")
    return prompt


def ask(complete_prompt: Complete, options: GenerateConfig, flags: Any) -> int:
    """Complete one prompt after another, independently, until the input ends. An interrupt asks for the next one."""
    with suppress(ImportError):
        import readline  # noqa: F401  (imported for its effect: input() then has editing and history)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # as_text names a wrong byte; strict would end the loop
    if sys.stdin.isatty():
        print("Type the beginning of a text. Ctrl-D ends, and Ctrl-C stops an answer.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ")
            if not sys.stdin.isatty():
                put(f"{prompt}\n")  # as a terminal does by itself, so that every answer stands below its prompt
            if prompt.strip():
                with suppress(KeyboardInterrupt):
                    show(complete_prompt, as_text(prompt, "The prompt"), options, flags)
        except EOFError:
            put("\n")
            return 0
        except KeyboardInterrupt:  # perhaps meant for a completion that had just ended
            print()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def show(complete_prompt: Complete, prompt: str | None, options: GenerateConfig, flags: Any) -> list[Completion]:
    """Generate and print: JSON lines, one text while it is generated, or all texts one below the other.

    Every completion is printed after its prompt, but not after an interactive one, which already stands above it.
    """
    shown_prompt = "" if prompt is None or flags.interactive else prompt
    streams = sys.stdout.isatty() if flags.stream is None else flags.stream
    if streams and options.num_samples == 1 and not flags.json:
        put(shown_prompt)
        try:
            completions = complete_prompt(prompt, lambda _, text: put(text))
        finally:
            put("\n")
    else:
        completions = complete_prompt(prompt, None)
        for number, completion in enumerate(completions, 1):
            if flags.json:
                print(json.dumps(dataclasses.asdict(completion), ensure_ascii=False).translate(JSON_CONTROLS))
                continue
            if len(completions) > 1:
                put(f"--- sample {number} of {len(completions)} ---\n")
            put(f"{shown_prompt}{completion.completion}\n")
    if sys.stderr.isatty():
        tokens, seconds = sum(c.tokens for c in completions), max(c.seconds for c in completions)
        noun = "token" if tokens == 1 else "tokens"
        print(f"{tokens} {noun}, {tokens / seconds:.0f} tokens per second", file=sys.stderr)
    return completions


def put(text: str) -> None:
    """Write text to standard output at once; a terminal gets control characters as codes such as \\x1b."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def parse_generate(arguments: Sequence[str], prog: str) -> tuple[GenerateConfig, Any]:
    """The settings of the command line of `generate.py`, and its flags: run, json, interactive, attention, stream.

    stream is None where neither --stream nor --no-stream is given. `prog` is the name of the command in messages.
    """
    parser = new_parser(prog, GenerateConfig)
    parser.add_argument("run", nargs="?", metavar="RUN", help="Run folder; by default the newest one.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object for each sample.")
    parser.add_argument("--interactive", action="store_true", help="Ask for one prompt after another, until Ctrl-D.")
    parser.add_argument("--attention", metavar="FILE.html", help="Write what every head attends to, as a page.")
    stream = parser.add_mutually_exclusive_group()
    stream.add_argument("--stream", action="store_true", default=None, help="Show text as it grows, also in a pipe.")
    stream.add_argument("--no-stream", dest="stream", action="store_false", default=None, help="Show it when complete.")
    flags = parse(parser, GenerateConfig, arguments)
    # A prompt of null is that word, not YAML's.
    flags.prompt = option_value(arguments, "--prompt") or flags.prompt
    return instantiate(parser, flags, GenerateConfig), flags
