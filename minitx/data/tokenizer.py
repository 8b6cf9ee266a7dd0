"""Text to token ids and back with SentencePiece, losing nothing.

`Tokenizer.train` learns a unigram, bpe or char model from texts; `encode` and `decode` are exact inverses for every
string without lone surrogates, and `StreamDecoder` does what `decode` does one id at a time. Text never turns into
a control token: the only ones are end of document and the unknown token that SentencePiece insists on.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minitx.config import TokenizerConfig
from minitx.system.errors import UserError, require
from minitx.system.faults import with_filename

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

Ids = np.ndarray[Any, np.dtype[np.int32]]

END_OF_DOCUMENT = "<|endoftext|>"
SPACE = "\u2581"  # SentencePiece writes a space so inside a piece; as a character of the text it needs care
RESERVED = re.compile("[\n\0\u2581\u2585]")  # SentencePiece's trainer drops whole sentences that hold the last two
SENTENCE = 4096  # characters; the trainer takes no sentence of unbounded length
LABELS = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣", SPACE: "␣"}
PROBE = "  two  spaces \n\tﬁ é \u2581 日 <s></s><unk><0x0A> \0 "

# What keeps the text as it is: no Unicode normalisation, no space added or removed, bytes for unknown characters.
LOSSLESS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    "allow_whitespace_only_pieces": True,
    "required_chars": SPACE,  # a space without a token of its own would come back as U+2581
}
PIECES: dict[str, Any] = {"unk_id": 0, "eos_id": 1, "eos_piece": END_OF_DOCUMENT, "bos_id": -1, "pad_id": -1}
# The number of threads is written into the model and orders its sums: one, so that equal texts give equal bytes.
QUIET_AND_EXACT: dict[str, Any] = {"num_threads": 1, "minloglevel": 3, "max_sentence_length": 1 << 20}


class Tokenizer:
    """A trained SentencePiece model; `proto` is its file's content."""

    def __init__(self, proto: bytes, origin: str = "The tokenizer model") -> None:
        """`origin` begins the sentence of the `UserError` raised where `proto` is no model that loses nothing."""
        from sentencepiece import SentencePieceProcessor

        self.proto = proto
        try:
            self._model: SentencePieceProcessor = SentencePieceProcessor(model_proto=proto)
            count = self._model.get_piece_size()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{origin} is not a SentencePiece model: give one that minitx wrote.") from error
        require(
            count >= 256 and all(self._model.is_byte(self._model.piece_to_id(f"<0x{b:02X}>")) for b in range(256)),
            f"{origin} has no token for each of the 256 bytes, so it would lose text: give one that minitx wrote.",
        )
        require(self._model.eos_id() >= 0, f"{origin} has no end-of-document token: give one that minitx wrote.")
        require(
            self.decode(self.encode(PROBE)) == PROBE,
            f"{origin} alters spaces or characters, so it would lose text: give one that minitx wrote.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
        """Learn a model from `texts`; equal texts give equal bytes.

        SentencePiece holds all the text, so pass a sample of a large corpus; not so for char, whose vocabulary is
        every character of `texts` (but U+2581 and NUL, which byte tokens stand for). Raises `UserError` where
        vocab_size does not fit the text.
        """
        from sentencepiece import SentencePieceTrainer

        symbols, sentences = ["\n"], _sentences(texts)
        settings: dict[str, Any] = {"vocab_size": config.vocab_size, "character_coverage": 0.9995}
        if config.type == "char":
            characters: set[str] = set()
            for text in texts:
                characters.update(text)
            symbols += ["\u2585"] if "\u2585" in characters else []
            sentences = iter(sorted(c for c in characters if not RESERVED.match(c)) or [" "])
            settings = {"vocab_size": 0x110000 + 512, "character_coverage": 1.0, "hard_vocab_limit": False}
        model = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=sentences,
                model_writer=model,
                model_type=config.type,
                user_defined_symbols=symbols,  # a line break is always its own token: nothing merges across lines
                **settings,
                **LOSSLESS,
                **PIECES,
                **QUIET_AND_EXACT,
            )
        except RuntimeError as error:
            raise _training_error(config, str(error)) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a model file; raises `UserError` where there is none or it is damaged."""
        try:
            proto = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"Tokenizer model {path} cannot be read ({error.strerror}): check the path.") from error
        return cls(proto, origin=str(path))

    def save(self, path: str | Path) -> None:
        """Write the model file, through to the disk."""
        with with_filename(Path(path)), Path(path).open("wb") as file:
            file.write(self.proto)
            file.flush()
            os.fsync(file.fileno())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without end of document. Raises `UserError` for a lone surrogate."""
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"The text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which "
                "is not valid Unicode: take it out."
            ) from error
        return [int(i) for i in self.encode_batch([data])[0]]

    def encode_batch(self, texts: Sequence[bytes]) -> list[Ids]:
        """Token ids of each UTF-8 text; SentencePiece does it outside Python's lock, for several threads to call."""
        marker = SPACE.encode()
        # U+2581 would come back as a space, so a text that holds it is encoded around it and the bytes are put in.
        parts = [part for text in texts for part in text.split(marker)]
        arrays: list[Ids] = self._model.encode(parts, return_type="numpy", num_threads=1)
        if len(parts) == len(texts):
            return arrays
        marker_ids = np.array([self._byte_ids[b] for b in marker], np.int32)
        joined: list[Ids] = []
        at = 0
        for text in texts:
            count = text.count(marker) + 1
            between = [array for part in arrays[at : at + count] for array in (marker_ids, part)]
            joined.append(np.concatenate(between[1:]))
            at += count
        return joined

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that form no whole character become U+FFFD, end of document becomes nothing."""
        table = self._bytes
        return b"".join(table[i] for i in ids).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, control and byte tokens included."""
        return len(self._bytes)

    @property
    def end_of_document(self) -> int:
        """The id that stands at the start of a corpus and after each document."""
        return int(self._model.eos_id())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model, in hexadecimal."""
        return hashlib.sha256(self.proto).hexdigest()

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that the token stands for, perhaps only part of a character."""
        return self._bytes[id]

    def token_text(self, id: int) -> str:
        """A label for pictures: a space shows as ␣, a line break as ⏎, a byte token as <0xE2>."""
        piece = str(self._model.id_to_piece(id))
        if self._model.is_byte(id) or self._model.is_control(id) or self._model.is_unknown(id):
            return piece
        return "".join(LABELS.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in piece)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [self._piece_bytes(i) for i in range(self._model.get_piece_size())]

    @cached_property
    def _byte_ids(self) -> list[int]:
        return [int(self._model.piece_to_id(f"<0x{b:02X}>")) for b in range(256)]

    def _piece_bytes(self, id: int) -> bytes:
        piece = str(self._model.id_to_piece(id))
        if self._model.is_byte(id):
            return bytes([int(piece[3:5], 16)])
        if self._model.is_control(id):
            return b""
        return ("\ufffd" if self._model.is_unknown(id) else piece.replace(SPACE, " ")).encode()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in RESERVED.split(text):
            yield from (line[i : i + SENTENCE] for i in range(0, len(line), SENTENCE))


def _training_error(config: TokenizerConfig, message: str) -> UserError:
    """One sentence for what SentencePiece's trainer says, such as "Please set it to a value <= 1234."."""
    size = f"tokenizer.vocab_size is {config.vocab_size}, but the text"
    if found := re.search(r"set it to a value <= (\d+)", message):
        if int(found[1]) >= 300:
            return UserError(f"{size} yields at most {found[1]} {config.type} tokens: take {found[1]} or fewer.")
        return UserError(
            f"{size} yields at most {found[1]} {config.type} tokens, fewer than the 300 that are needed: set "
            "tokenizer.type to char, or use more text."
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(f"{size} has so many different characters that it needs {found[1]} or more: take {found[1]}.")
    if "sentences_.empty()" in message:
        return UserError("The text holds nothing but line breaks, so there is nothing to train a tokenizer on.")
    return UserError(f"SentencePiece could not train a {config.type} tokenizer on this text ({message.strip()}).")
