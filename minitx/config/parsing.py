"""Command lines and YAML files → config dataclasses; faults → one sentence and an exit status.

Imports nothing heavy, so that `--help` answers at once. Parsing is jsonargparse's; this module adds what a person
should read when a key, a value or a file is wrong.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from minitx.config import Config
from minitx.system.errors import UserError, nearest, require

set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T", bound=object)
MAX_BYTES = 1 << 17
"""Of a YAML file of settings; what ships has less than a thousandth of it."""
MAX_LEVELS = 10
"""Of lists and sections inside each other in a YAML file of settings."""


def parse_plain(parser: ArgumentParser, arguments: Sequence[str]) -> Any:
    """The flags of a command that has no configuration; complaints are `UserError`s."""
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise UserError(explain(str(error), parser)) from error


def load_config(file: Path) -> Config:
    """The configuration in a YAML file, checked."""
    parser = new_parser("minitx", Config)
    return instantiate(parser, parse(parser, Config, ["--config", str(file)]), Config)


def new_parser(prog: str, settings: type[T]) -> ArgumentParser:
    """A parser for every field of the dataclass `settings`, and --config for a YAML file of them."""
    parser = ArgumentParser(
        prog=prog, description=settings.__doc__, exit_on_error=False, default_env=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with any of the settings below.")
    parser.add_class_arguments(settings, as_group=False, fail_untyped=True)
    return parser


def parse(parser: ArgumentParser, settings: type[T], arguments: Sequence[str]) -> Any:
    """`parser.parse_args` with complaints a person can act on, raised as `UserError`."""
    types_by_key = setting_types(settings)
    flags = {option for action in parser._actions for option in action.option_strings}
    for argument in arguments:
        option = argument.split("=", 1)[0]
        if option == "--":
            break
        if re.match(r"--\w", option) and option not in flags:
            raise UserError(f"There is no option {option}{nearest(option, sorted(flags))}: see --help.")
    file = option_value(arguments, "--config")
    if file is not None:
        check_file(Path(file), types_by_key)
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise UserError(explain(str(error), parser)) from error


def instantiate(parser: ArgumentParser, namespace: Any, settings: type[T]) -> T:
    """The dataclass that a parsed namespace describes."""
    plain = parser.instantiate(namespace)
    return settings(**{field.name: plain[field.name] for field in dataclasses.fields(typing.cast(Any, settings))})


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """The value given for a command-line option, as `--option value` or `--option=value`."""
    for i, argument in enumerate(arguments):
        if argument == option and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return None


def setting_types(settings: type[Any], prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name, with its type; sections are walked through."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(settings).items():
        if dataclasses.is_dataclass(hint):
            found |= setting_types(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found


def check_file(file: Path, types_by_key: dict[str, Any]) -> None:
    """Raise `UserError` unless `file` is YAML that names only settings there are."""
    require(file.is_file(), f"There is no configuration file {file}.")
    try:
        size = file.stat().st_size
        require(size <= MAX_BYTES, f"{file} has {size} bytes, but settings need no more than {MAX_BYTES}.")
        text = file.read_text("utf-8")
        check_shape(file, text)
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{file} is not valid YAML{line}.") from error
    except ValueError as error:  # such as a date of month 13, or a number of 5000 digits
        raise UserError(f"{file} holds a value that cannot be read: {error}.") from error
    require(content is None or isinstance(content, dict), f"{file} holds no settings: write lines such as 'seed: 1'.")
    check_keys(content or {}, "", file, types_by_key)


def check_shape(file: Path, text: str) -> None:
    """Raise `UserError` for YAML that a stranger could have made to grow without bound when it is read."""
    level = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        line = token.start_mark.line + 1
        require(
            not isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken),
            f"{file} has an anchor, an alias or a tag (line {line}): write the settings out.",
        )
        opens = yaml.BlockMappingStartToken | yaml.BlockSequenceStartToken
        closes = yaml.BlockEndToken | yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken
        if isinstance(token, opens | yaml.FlowMappingStartToken | yaml.FlowSequenceStartToken):
            level += 1
        elif isinstance(token, closes):
            level -= 1
        require(level <= MAX_LEVELS, f"{file} has more than {MAX_LEVELS} levels (line {line}): write it flatter.")


def check_keys(content: dict[Any, Any], prefix: str, file: Path, types_by_key: dict[str, Any]) -> None:
    """Raise `UserError` for the first key that is no setting, naming the nearest."""
    sections = {key.rsplit(".", 1)[0] for key in types_by_key if "." in key}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in sections:
            require(isinstance(value, dict), f"{key} in {file} is a section: give its settings on indented lines.")
            check_keys(value, f"{key}.", file, types_by_key)
        elif key not in types_by_key:
            raise UserError(f"There is no setting {key} in {file}{nearest(key, sorted({*types_by_key, *sections}))}.")


def explain(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's complaint as one sentence; a value of the wrong type is named with what was expected."""
    types_by_key = {action.dest: action._typehint for action in parser._actions if hasattr(action, "_typehint")}
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message, re.DOTALL)
    if key and value and key.group(1) in types_by_key:
        return f"{key.group(1)} is {value.group(1)!r}, but it takes {in_words(types_by_key[key.group(1)])}."
    if key and any(name.startswith(key.group(1) + ".") for name in types_by_key):
        return f"{key.group(1)} is a section of settings: write --{key.group(1)}.NAME VALUE."
    return " ".join(message.split()).rstrip(".") + ": see --help."


def in_words(hint: Any) -> str:
    """A type as a person would say it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(in_words(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(str(value) for value in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return "a list such as '[a, b]'"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words[hint]
