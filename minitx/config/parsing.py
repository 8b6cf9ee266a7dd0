"""Command lines and YAML files → the dataclasses of settings, or a sentence on what is wrong with them.

jsonargparse parses. This module checks files before it, and puts its complaints into words. It imports nothing heavy,
so that `--help` answers at once.
"""

import contextlib
import dataclasses
import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from minitx.config import Config
from minitx.config.shipped import find_config
from minitx.system.errors import UserError, nearest, require
from minitx.system.files import read_file

set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T", bound=object)
MAX_BYTES = 1 << 17  # of a YAML file of settings; those that ship have less than a thousandth of it
MAX_DIGITS = 100  # of a number in a YAML file of settings
TOO_LONG = "A setting has a number with too many digits: give a shorter one."
BASE_60 = re.compile("[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\\.[0-9_]*)?")  # a number to YAML: 1:30 is 90
MAX_LEVELS = 10  # of lists and sections inside one another in a YAML file of settings


def load_config(file: Path) -> Config:
    """The configuration in a YAML file, checked."""
    parser = new_parser("minitx", Config)
    return instantiate(parser, parse(parser, Config, ["--config", str(file)]), Config)


def new_parser(prog: str, settings: type[T]) -> ArgumentParser:
    """A parser for all fields of the dataclass `settings`, and --config for a YAML file of them."""
    parser = ArgumentParser(
        prog=prog, description=settings.__doc__, exit_on_error=False, default_env=False, allow_abbrev=False
    )
    by_name = issubclass(settings, Config)
    metavar, which = ("FILE|NAME", ", or a name that minitx configs lists") if by_name else ("FILE", "")
    about = f"YAML file with any of the settings below{which}."
    parser.add_argument("--config", action="config", metavar=metavar, help=about)
    parser.add_class_arguments(settings, as_group=False, fail_untyped=True)
    return parser


def parse(parser: ArgumentParser, settings: type[T], arguments: Sequence[str]) -> Any:
    """As `parse_plain`, for a parser of `new_parser`: a YAML file is found, by name too, and checked first."""
    if (name := option_value(arguments, "--config")) is not None:
        file = find_config(name) if issubclass(settings, Config) else Path(name)
        check_file(file, setting_names(settings))
        arguments = with_value(arguments, "--config", str(file))
    namespace = parse_plain(parser, arguments)
    types = option_types(parser)
    for name in setting_names(settings):  # jsonargparse takes null in a file for every type
        hint = types.get(name)
        is_right = namespace[name] is not None or hint is None or type(None) in typing.get_args(hint)
        require(is_right, f"{name} is null, but it takes {in_words(hint)}.")
    return namespace


def parse_plain(parser: ArgumentParser, arguments: Sequence[str]) -> Any:
    """`parser.parse_args`, whose complaints become `UserError`s that say what to do."""
    try:
        with numbers_in_words():
            namespace = parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise UserError(explain(str(error), option_types(parser))) from error
    for option, hint in option_types(parser).items():
        value = option_value(arguments, f"--{option}") or ""
        is_plain = isinstance(namespace.get(option), str) or not BASE_60.fullmatch(value)
        require(is_plain, f"{option} is {value[:40]!r}, but it takes {in_words(hint)}.")
    return namespace


def instantiate(parser: ArgumentParser, namespace: Any, settings: type[T]) -> T:
    """The dataclass that a parsed namespace describes."""
    with numbers_in_words():
        plain = parser.instantiate(namespace)
        return settings(**{field.name: plain[field.name] for field in dataclasses.fields(typing.cast(Any, settings))})


@contextlib.contextmanager
def numbers_in_words() -> Iterator[None]:
    """Turn the errors of a number with hundreds of digits into a `UserError`."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise UserError(TOO_LONG) from error


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """The value of a command-line option, written as `--option value` or `--option=value`."""
    for argument, following in itertools.pairwise([*arguments, None]):
        if argument == option:
            return following
        if argument and argument.startswith(option + "="):
            return argument.removeprefix(option + "=")
    return None


def with_value(arguments: Sequence[str], option: str, value: str) -> list[str]:
    """The arguments with another value of the option that `option_value` finds."""
    place = next(i for i, argument in enumerate(arguments) if argument.split("=")[0] == option)
    rest = place + 1 if "=" in arguments[place] else place + 2
    return [*arguments[:place], option, value, *arguments[rest:]]


def setting_names(settings: Any, prefix: str = "") -> list[str]:
    """The dotted names of all settings; those of a section follow one another."""
    names: list[str] = []
    for name, hint in typing.get_type_hints(settings).items():
        names += setting_names(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return names


def check_file(file: Path, names: Sequence[str]) -> None:
    """Raise `UserError` unless `file` is YAML that sets only settings in `names`."""
    require(file.is_file(), f"There is no configuration file {file}.")
    try:
        text = read_file(file, MAX_BYTES).decode()
        check_shape(file, text)
        check_node(file, yaml.compose(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}).") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{file} is not valid YAML{line}.") from error
    except ValueError as error:  # such as a date of month 13
        raise UserError(f"{file} holds a value that cannot be read: {error}.") from error
    require(content is None or isinstance(content, dict), f"{file} holds no settings: write lines such as 'seed: 1'.")
    check_keys(content or {}, "", file, names)


def check_shape(file: Path, text: str) -> None:
    """Raise `UserError` for YAML that could grow without bound when it is loaded, as a stranger's file might."""
    level = 0
    event: Any
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1
        is_plain = getattr(event, "anchor", None) is None and getattr(event, "tag", None) is None  # an alias has one
        require(is_plain, f"{file} has an anchor, an alias or a tag (line {line}): write the settings out.")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        require(level <= MAX_LEVELS, f"{file} has more than {MAX_LEVELS} levels (line {line}): write it flatter.")


def check_node(file: Path, node: Any) -> None:
    """Raise `UserError` for a key that is there twice, and for numbers too long or in YAML's base 60 (1:30 is 90)."""
    keys: set[str] = set()
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        if isinstance(part, tuple):
            key, part = part
            line = f"line {key.start_mark.line + 1}"
            require(str(key.value) not in keys, f"{file} sets {key.value} a second time ({line}): leave one out.")
            keys.add(str(key.value))
        check_node(file, part)
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
        is_plain, line = len(node.value) <= MAX_DIGITS and ":" not in node.value, f"line {node.start_mark.line + 1}"
        advice = "write a shorter one without colons, or a text in quotes"
        require(is_plain, f"{file} has the number {node.value[:20]} ({line}): {advice}.")


def check_keys(content: dict[Any, Any], prefix: str, file: Path, names: Sequence[str]) -> None:
    """Raise `UserError` for the first key that is no setting, with the nearest one.

    jsonargparse would take a section without settings (`model: 3`), and flags of the command line (`resume: x`).
    """
    sections = {name.rsplit(".", 1)[0] for name in names if "." in name}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in sections:
            require(isinstance(value, dict), f"{key} in {file} is a section: give its settings on indented lines.")
            check_keys(value, f"{key}.", file, names)
        elif key not in names:
            raise UserError(f"There is no setting {key} in {file}{nearest(key, sorted({*names, *sections}))}.")


def option_types(parser: ArgumentParser) -> dict[str, Any]:
    """The options of a parser, without their dashes, and the types of those that have one.

    They come from private parts of jsonargparse. Without these, `explain` falls back to jsonargparse's words.
    """
    return {
        option.lstrip("-"): getattr(action, "_typehint", None)
        for action in getattr(parser, "_actions", [])
        for option in action.option_strings
    }


def explain(message: str, types_by_option: dict[str, Any]) -> str:
    """jsonargparse's complaint as one sentence, with a hint for a mistyped option and the type that a value needs."""
    if unknown := re.search(r"unrecognized arguments:.*?(--\w[^\s=]*)", message):
        hint = nearest(unknown[1], sorted(f"--{option}" for option in types_by_option))
        return f"There is no option {unknown[1]}{hint}: see --help."
    if missing := re.search(r"arguments are required: (.*)", message):
        return f"Give {missing[1].upper().replace(', ', ' and ')}: see --help."
    if extra := re.search(r"unrecognized arguments: (.*)", message):
        return f"There is no place for {' '.join(extra[1].split())}: see --help."
    if bare := re.search(r"argument (--\S+): expected (one argument|\d+ arguments)", message):
        return f"{bare[1]} takes {bare[2].replace('argument', 'value')}: see --help."
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.findall(r"(?:Got|Given) value: (.*)", message)
    if "integer string conversion" in message:
        return TOO_LONG
    if key and value and types_by_option.get(key[1]) is not None:
        return f"{key[1]} is {value[-1]!r}, but it takes {in_words(types_by_option[key[1]])}."
    if key and any(option.startswith(key[1] + ".") for option in types_by_option):
        return f"{key[1]} is a section of settings: write --{key[1]}.NAME VALUE."
    return " ".join(message.split()).rstrip(".") + ": see --help."


def in_words(hint: Any) -> str:
    """A type in plain words, for error messages."""
    if typing.get_origin(hint) is list:
        return "a list such as '[a, b]'"
    if parts := typing.get_args(hint):  # of a union or a Literal
        return " or ".join(map(in_words, parts))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, str(hint))
