"""`generate.py`: write text with a trained model, on the terminal or as JSON.

Standard output has the text alone; what else there is to say goes to standard error. Parsing and reading the prompt
come before anything heavy is imported, so that `--help` and a wrong option are answered at once.
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
from minitx.system.files import check_page_name

if TYPE_CHECKING:
    from minitx.data.tokenizer import Tokenizer
    from minitx.generation.compiled_decoder import CompiledDecoder
    from minitx.generation.generate import Completion
    from minitx.model import Transformer
    from minitx.run.folder import Run

    Complete = Callable[[str | None, Callable[[int, str], None] | None], list[Completion]]

CONTROL_CHARACTERS = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
VISIBLE = {code: f"\\x{code:02x}" for code in CONTROL_CHARACTERS}
VISIBLE_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # json escapes the rest itself


def main(arguments: Sequence[str] | None = None, prog: str = "generate.py") -> int:
    """Generate as the command line says; the exit status."""
    options, flags = parse_generate(sys.argv[1:] if arguments is None else arguments, prog)
    require(not (flags.interactive and flags.json), "Both --interactive and --json are given: leave one out.")
    require(
        not flags.interactive or (options.prompt is None and options.prompt_file is None),
        "--interactive asks for the prompts: leave --prompt and --prompt_file out.",
    )
    require(
        not (flags.interactive and flags.attention is not None),
        "Both --interactive and --attention are given: leave one out.",
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
    found = Run.find(flags.run)
    device, reason = choose_device(options.device)
    precision = "float32" if options.dtype == "auto" and device.type == "cpu" else options.dtype
    model, checkpoint = found.load_model(options.checkpoint, device)
    model.to(choose_dtype(precision, device)[0])
    tokenizer = found.tokenizer()
    if flags.run is None or sys.stderr.isatty():
        print(f"{found.path}, {checkpoint}, on {device} ({reason})", file=sys.stderr)

    decoder = compiled_decoder(model, options) if options.compile else None
    made: list[Completion] = []

    def complete_prompt(text: str | None, on_text: Callable[[int, str], None] | None) -> list[Completion]:
        try:
            completions = complete(model, tokenizer, text, options, on_text, decoder)
            made.extend(completions)
            return completions
        except FloatingPointError as error:
            raise UserError(
                f"The model of {found.path}, {checkpoint}, gives logits that are not finite, so its training failed: "
                "try another --checkpoint, or train again with a lower learning rate."
            ) from error

    if flags.interactive:
        return ask(complete_prompt, options, flags)
    show(complete_prompt, prompt, options, flags)
    if flags.attention is not None:
        write_attention(Path(flags.attention), found, checkpoint, model, tokenizer, made)
    return 0


def compiled_decoder(model: Transformer, options: GenerateConfig) -> CompiledDecoder | None:
    """A decoder that is compiled, before any text is timed; None where nothing can be, which it says, or need be."""
    from minitx.generation.compiled_decoder import CompiledDecoder
    from minitx.generation.generate import generate
    from minitx.model import evaluating

    if options.max_new_tokens == 1:  # which comes with the prompt
        return None
    if reason := CompiledDecoder.why_not(model, options.num_samples):
        print(f"Not compiled: {reason}.", file=sys.stderr)
        return None
    if sys.stderr.isatty():
        print("Compiling, which takes some seconds …", file=sys.stderr)
    decoder = CompiledDecoder(model, options.num_samples)
    trial = dataclasses.replace(options, max_new_tokens=4)  # after the prompt's a GPU compiles, records and replays
    with evaluating(model), suppress(FloatingPointError):  # which the text itself will tell
        list(generate(model, [0], trial, end_token=-1, decoder=decoder))
    return decoder


def write_attention(
    file: Path, run: Run, checkpoint: str, model: Transformer, tokenizer: Tokenizer, completions: Sequence[Completion]
) -> None:
    """The page that shows what every head attends to in each prompt with its completion, encoded anew, as much of its
    end as the model sees at once; raises UserError where it cannot be written."""
    from minitx.heads.view import text_snapshot
    from minitx.system.files import step_of
    from minitx.tensorboard.plugin.page import write_html

    texts = []
    for made in completions:
        start = [tokenizer.end_of_document] if made.prompt is None else tokenizer.encode(made.prompt)
        tokens = [*start, *tokenizer.encode(made.completion)][-model.config.context_length :]
        texts.append((f"{made.prompt or ''}{made.completion}", tokens))
    snapshot = text_snapshot(model.float(), tokenizer, texts, step_of(checkpoint))
    try:
        write_html(file, [snapshot], title=run.path.name)
    except OSError as error:
        raise UserError(f"--attention {file} cannot be written ({error.strerror}): name another file.") from error
    print(f"Open {file} in a browser to see what the heads attend to.", file=sys.stderr)


# The prompt


def read_prompt(options: GenerateConfig) -> str | None:
    """The prompt of the command line, a file or standard input, as it is; None when there is none.

    Raises UserError when it cannot be read, is empty or is not UTF-8.
    """
    if options.prompt_file is not None:
        try:
            content = Path(options.prompt_file).read_bytes()
        except OSError as error:
            raise UserError(
                f"--prompt_file {options.prompt_file} cannot be read ({error.strerror}): name a text file in UTF-8."
            ) from error
        return decode_prompt(content, f"--prompt_file {options.prompt_file}")
    if options.prompt == "-":
        return decode_prompt(sys.stdin.buffer.read(), "The prompt on standard input")
    return None if options.prompt is None else check_prompt(options.prompt)


def decode_prompt(content: bytes, origin: str) -> str:
    """The text of a prompt's bytes, without a byte order mark; `origin` begins the sentence where they have none."""
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
    """`text`, or UserError when it holds bytes that Python could not decode, which it keeps as lone surrogates."""
    at = next((at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if at is not None:
        raise UserError(f"The prompt is not UTF-8: {text[at]!r} at character {at} is no character; write it in UTF-8.")
    return text


# What is shown


def ask(complete_prompt: Complete, options: GenerateConfig, flags: GenerateFlags) -> int:
    """Ask for one prompt after another, each on its own, until the input ends; an interrupt asks again."""
    with suppress(ImportError):
        import readline  # noqa: F401  (imported for its effect: input() then has editing and history)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # for check_prompt to name, where strict would end the loop
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            print()
            sys.stdout.flush()
            return 0
        except KeyboardInterrupt:  # perhaps meant for a completion that had just ended
            print()
            continue
        if not sys.stdin.isatty():
            put(f"{prompt}\n")  # as a terminal does by itself, so that each answer stands under its prompt
        if not prompt.strip():
            continue
        try:
            show(complete_prompt, check_prompt(prompt), options, flags)
        except KeyboardInterrupt:
            continue
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def show(complete_prompt: Complete, prompt: str | None, options: GenerateConfig, flags: GenerateFlags) -> None:
    """Generate and print: JSON lines, one text as it is made, or the texts one below the other.

    The prompt is printed before its completion, but for an interactive one, which is there already.
    """
    shown_prompt = "" if prompt is None or flags.interactive else prompt
    if flags.json:
        completions = complete_prompt(prompt, None)
        for completion in completions:
            line = json.dumps(dataclasses.asdict(completion), ensure_ascii=False)
            print(line.translate(VISIBLE_JSON))
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


def put(text: str) -> None:
    """Write text to standard output at once; a terminal gets control characters as \\x1b and the like."""
    sys.stdout.write(text.translate(VISIBLE) if sys.stdout.isatty() else text)
    sys.stdout.flush()


@dataclass(frozen=True)
class GenerateFlags:
    """What `generate.py` takes besides `GenerateConfig`; stream None means: where standard output is a terminal."""

    run: str | None
    json: bool
    interactive: bool
    attention: str | None
    stream: bool | None


def parse_generate(arguments: Sequence[str], prog: str) -> tuple[GenerateConfig, GenerateFlags]:
    """The settings of a generation and the plain flags beside them."""
    parser = new_parser(prog, GenerateConfig)
    parser.add_argument("run", nargs="?", metavar="RUN", help="Run folder; by default the newest one.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object for each sample.")
    parser.add_argument("--interactive", action="store_true", help="Ask for one prompt after another.")
    parser.add_argument(
        "--attention", metavar="FILE.html", help="Write what every head attends to in the text, as a page to look at."
    )
    streaming = parser.add_mutually_exclusive_group()
    streaming.add_argument(
        "--stream", dest="stream", action="store_true", default=None, help="Show text as it is made, also in a pipe."
    )
    streaming.add_argument(
        "--no-stream", dest="stream", action="store_false", default=None, help="Show text when it is done."
    )
    namespace = parse(parser, GenerateConfig, arguments)
    namespace.prompt = (
        option_value(arguments, "--prompt") or namespace.prompt
    )  # a prompt of null is that word, not YAML
    flags = GenerateFlags(**{field.name: namespace.pop(field.name) for field in dataclasses.fields(GenerateFlags)})
    return instantiate(parser, namespace, GenerateConfig), flags
