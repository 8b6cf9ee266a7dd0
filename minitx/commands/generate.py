"""`generate.py`: write text with a trained model, on the terminal or as JSON.

Standard output gets the text alone, all notices go to standard error. Nothing heavy is imported before the options are
parsed and the prompt is read, so that `--help` and a wrong option are answered at once.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.config import GenerateConfig
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import UserError, require
from minitx.system.files import check_page_name, writing
from minitx.system.text import visible

if TYPE_CHECKING:
    from minitx.data.tokenizer import Tokenizer
    from minitx.generation.decoder import Decoder
    from minitx.generation.generate import Completion
    from minitx.model import Transformer
    from minitx.run.folder import Run

    Complete = Callable[[str | None, Callable[[int, str], None] | None], list[Completion]]

JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that the json module leaves as they are, and their escapes."""


def main(arguments: Sequence[str] | None = None, prog: str = "generate.py") -> int:
    """Generate as the command line says; return the exit status."""
    options, flags = parse_generate(sys.argv[1:] if arguments is None else arguments, prog)
    for name, given in (("json", flags.json), ("attention", flags.attention is not None)):
        require(not (flags.interactive and given), f"Both --interactive and --{name} are given: leave one out.")
    require(
        not flags.interactive or (options.prompt is None and options.prompt_file is None),
        "--interactive asks for the prompts: leave --prompt and --prompt_file out.",
    )
    if flags.attention is not None:
        check_page_name(flags.attention)
    prompt = read_prompt(options)
    if isinstance(sys.stdout, io.TextIOWrapper):
        if flags.json:
            sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 everywhere
        else:
            sys.stdout.reconfigure(errors="replace")

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
    decoder = compiled_decoder(model, options) if options.compile else None

    def complete_prompt(text: str | None, on_text: Callable[[int, str], None] | None) -> list[Completion]:
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
        write_attention(Path(flags.attention), run, checkpoint, model, tokenizer, completions)
    return 0


def compiled_decoder(model: Transformer, options: GenerateConfig) -> Decoder | None:
    """The decoder of all prompts, compiled before any text is timed; prints why if this model cannot be compiled."""
    from minitx.generation.compiled_decoder import CompiledDecoder
    from minitx.generation.generate import warm_decoder

    if options.max_new_tokens == 1:  # it comes with the prompt
        return None
    if reason := CompiledDecoder.why_not(model, options.num_samples):
        print(f"Not compiled: {reason}.", file=sys.stderr)
    elif sys.stderr.isatty():
        print("Compiling, which takes some seconds …", file=sys.stderr)
    return warm_decoder(model, options)


def write_attention(
    file: Path, run: Run, checkpoint: str, model: Transformer, tokenizer: Tokenizer, completions: Sequence[Completion]
) -> None:
    """Write the page that shows what every head attends to in the texts, prompts with their completions.

    Texts are encoded anew and cut to the last `context_length` tokens. Raises UserError if the page cannot be written.
    """
    from minitx.heads.view import text_snapshot
    from minitx.system.files import step_of
    from minitx.tensorboard.plugin.page import write_html

    texts = []
    for completion in completions:
        start = [tokenizer.end_of_document] if completion.prompt is None else tokenizer.encode(completion.prompt)
        tokens = [*start, *tokenizer.encode(completion.completion)][-model.config.context_length :]
        texts.append((f"{completion.prompt or ''}{completion.completion}", tokens))
    snapshot = text_snapshot(model.float(), tokenizer, texts, step_of(checkpoint))
    with writing(f"--attention {file}"):
        write_html(file, [snapshot], title=run.path.name)
    print(f"Open {file} in a browser to see what the heads attend to.", file=sys.stderr)


# The prompt


def read_prompt(options: GenerateConfig) -> str | None:
    """The unchanged prompt of the command line, a file or standard input; None if no prompt is given.

    Raises UserError if it cannot be read, is empty or is not UTF-8.
    """
    if options.prompt_file is not None:
        origin = f"--prompt_file {options.prompt_file}"
        try:
            content = Path(options.prompt_file).read_bytes()
        except OSError as error:
            raise UserError(f"{origin} cannot be read ({error.strerror}): name a text file in UTF-8.") from error
        return decode_prompt(content, origin)
    if options.prompt == "-":
        return decode_prompt(sys.stdin.buffer.read(), "The prompt on standard input")
    return None if options.prompt is None else check_prompt(options.prompt)


def decode_prompt(content: bytes, origin: str) -> str:
    """The text of a prompt's bytes, without a byte order mark. A UserError begins with `origin`, for example a file."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{origin} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; convert it to UTF-8."
        ) from error
    text = text.removeprefix(codecs.BOM_UTF8.decode())
    require(text != "", f"{origin} is empty: give some text, or no prompt to start a new document.")
    return text


def check_prompt(text: str) -> str:
    """Return `text`. Raises UserError if it has lone surrogates: bytes that Python could not decode."""
    at = next((at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if at is not None:
        raise UserError(f"The prompt is not UTF-8: {text[at]!r} at character {at} is no character; write it in UTF-8.")
    return text


# The output


def ask(complete_prompt: Complete, options: GenerateConfig, flags: GenerateFlags) -> int:
    """Complete one prompt after another, independently, until the input ends. An interrupt asks for the next one."""
    with suppress(ImportError):
        import readline  # noqa: F401  (imported for its effect: input() then has editing and history)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # check_prompt names a wrong byte; strict would end the loop
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            put("\n")
            return 0
        except KeyboardInterrupt:  # perhaps meant for a completion that had just ended
            print()
            continue
        if not sys.stdin.isatty():
            put(f"{prompt}\n")  # as a terminal does by itself, so that every answer stands below its prompt
        if not prompt.strip():
            continue
        try:
            show(complete_prompt, check_prompt(prompt), options, flags)
        except KeyboardInterrupt:
            continue
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def show(
    complete_prompt: Complete, prompt: str | None, options: GenerateConfig, flags: GenerateFlags
) -> list[Completion]:
    """Generate and print: JSON lines, one text while it is generated, or all texts one below the other.

    Every completion is printed after its prompt, but not after an interactive one, which already stands above it.
    """
    shown_prompt = "" if prompt is None or flags.interactive else prompt
    if flags.json:
        completions = complete_prompt(prompt, None)
        for completion in completions:
            print(json.dumps(dataclasses.asdict(completion), ensure_ascii=False).translate(JSON_CONTROLS))
    elif options.num_samples == 1 and (sys.stdout.isatty() if flags.stream is None else flags.stream):
        put(shown_prompt)
        try:
            completions = complete_prompt(prompt, lambda _, text: put(text))
        finally:
            put("\n")
    else:
        completions = complete_prompt(prompt, None)
        for number, completion in enumerate(completions, 1):
            if options.num_samples > 1:
                put(f"--- sample {number} of {options.num_samples} ---\n")
            put(f"{shown_prompt}{completion.completion}\n")
    sys.stdout.flush()
    if sys.stderr.isatty():
        tokens, seconds = sum(c.tokens for c in completions), max(c.seconds for c in completions)
        noun = "token" if tokens == 1 else "tokens"
        print(f"{tokens} {noun}, {tokens / seconds:.0f} tokens per second", file=sys.stderr)
    return completions


def put(text: str) -> None:
    """Write text to standard output at once; a terminal gets control characters as codes such as \\x1b."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


@dataclass(frozen=True)
class GenerateFlags:
    """The flags of `generate.py` beside `GenerateConfig`; stream None: only if standard output is a terminal."""

    run: str | None
    json: bool
    interactive: bool
    attention: str | None
    stream: bool | None


def parse_generate(arguments: Sequence[str], prog: str) -> tuple[GenerateConfig, GenerateFlags]:
    """Parse the command line of `generate.py`; `prog` is its name in messages."""
    parser = new_parser(prog, GenerateConfig)
    parser.add_argument("run", nargs="?", metavar="RUN", help="Run folder; by default the newest one.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object for each sample.")
    parser.add_argument("--interactive", action="store_true", help="Ask for one prompt after another.")
    parser.add_argument(
        "--attention", metavar="FILE.html", help="Write what every head attends to in the text, as a page to look at."
    )
    streaming = parser.add_mutually_exclusive_group()
    streaming.add_argument(
        "--stream", dest="stream", action="store_true", default=None, help="Show text as it grows, also in a pipe."
    )
    streaming.add_argument(
        "--no-stream", dest="stream", action="store_false", default=None, help="Show text when it is complete."
    )
    namespace = parse(parser, GenerateConfig, arguments)
    # A prompt of null is that word, not YAML's.
    namespace.prompt = option_value(arguments, "--prompt") or namespace.prompt
    flags = GenerateFlags(**{field.name: namespace.pop(field.name) for field in dataclasses.fields(GenerateFlags)})
    return instantiate(parser, namespace, GenerateConfig), flags
