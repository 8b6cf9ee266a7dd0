"""The tokenizers of other models: a tokenizer.json, with the ids that the `tokenizers` library gives.

Unlike a tokenizer of minitx it may alter a text, such as its Unicode form. Control tokens that are written in a text
are taken for such, as `transformers` does.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitx.data.tokenizer import SPACE, Ids, Tokenizer
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = {byte: chr(byte) for byte in PRINTABLE}
LETTERS |= {byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in LETTERS)}
"""The letter that stands for a byte in a token of the library's ByteLevel, as in GPT-2."""
BYTES = {letter: byte for byte, letter in LETTERS.items()}
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
MAX_BYTES = 64 << 20
"""Of a tokenizer.json; the largest have 35 MB."""


class JsonTokenizer(Tokenizer):
    """A tokenizer.json, of which `proto` is the content."""

    FILE = "tokenizer.json"

    def __init__(self, proto: bytes, end: int | str, vocab_size: int, origin: str = "The tokenizer") -> None:
        """`end` ends a document. The model has `vocab_size` tokens, some of them perhaps unknown here.

        Raises a `UserError` for what the library cannot read, and for tokens whose bytes cannot be told.
        """
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise UserError(
                f"{origin} needs the library tokenizers: install it with 'pip install tokenizers'."
            ) from error
        try:
            self._library: Any = Library.from_buffer(proto)
        except Exception as error:  # the library raises nothing more special
            raise UserError(
                f"{origin} is no tokenizer that the library tokenizers reads ({error}): get a whole copy, or update it "
                "with 'pip install -U tokenizers'."
            ) from error
        named = self._library.token_to_id(end) if isinstance(end, str) else end
        self.proto, self._end = proto, -1 if named is None else int(named)
        require(0 <= self._end < vocab_size, f"{origin} has no token {end!r}, which is to end a text.")
        self._library.no_truncation()
        self._library.no_padding()
        added = self._library.get_added_tokens_decoder()
        self._names = {id: name for name, id in self._library.get_vocab().items()}
        highest = max(self._names, default=0)
        counts = f"{origin} has tokens up to {highest}, but the model was made for {vocab_size}"
        require(highest < vocab_size, f"{counts}: name a folder where both fit.")
        is_in_bytes = self._is_in_bytes(origin)
        self._bytes = [self._bytes_of(id, is_in_bytes) for id in range(vocab_size)]
        for id, token in added.items():
            self._bytes[id] = b"" if token.special else token.content.encode()
        whole = self._library.encode("a").ids
        alone = self._library.encode("a", add_special_tokens=False).ids
        self._start = whole[: whole.index(alone[0])] if alone and alone[0] in whole else []

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` after those that the model expects first, such as <s>; raises as `Tokenizer.encode`."""
        return [*self._start, *super().encode(text)]

    def encode_batch(self, texts: Sequence[bytes]) -> list[Ids]:
        """Token ids of UTF-8 texts, without those that come first."""
        encoded = self._library.encode_batch_fast([text.decode() for text in texts], add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encoded]

    @property
    def byte_tokens(self) -> list[int]:
        """The tokens of single bytes that are no character."""
        return [id for id, part in enumerate(self._bytes) if (len(part) == 1 and part >= b"\x80") or self._is_byte(id)]

    @property
    def end_of_document(self) -> int:
        return self._end

    @property
    def control_names(self) -> dict[str, str]:
        """The names of the end of document and of the first token, by their keys in tokenizer_config.json."""
        start = {"bos_token": self._piece(self._start[0])} if self._start else {}
        return {"eos_token": self._piece(self._end), **start}

    def _piece(self, id: int) -> str:
        return self._names.get(id, f"<{id}>")

    def _is_byte(self, id: int) -> bool:
        return BYTE_TOKEN.fullmatch(self._piece(id)) is not None

    def _is_in_bytes(self, origin: str) -> bool:
        """Whether tokens are written in LETTERS, not in characters; raises UserError where neither is so."""
        parts = list(_parts(json.loads(self._library.decoder.__getstate__()) if self._library.decoder else {}))
        kinds = {part.get("type") for part in parts}
        spaces = {"Metaspace"} & kinds or any(part.get("content") == " " for part in parts)
        require(
            "ByteLevel" in kinds or bool(spaces),
            f"{origin} decodes tokens by {', '.join(map(str, kinds)) or 'nothing'}, but minitx reads ByteLevel and "
            "Metaspace alone.",
        )
        return "ByteLevel" in kinds

    def _bytes_of(self, id: int, is_in_bytes: bool) -> bytes:
        """The bytes of a token that is part of a text; none for one that the tokenizer lacks."""
        name = self._names.get(id, "")
        if is_in_bytes:
            return bytes(BYTES[letter] for letter in name) if set(name) <= BYTES.keys() else name.encode()
        byte = BYTE_TOKEN.fullmatch(name)
        return bytes([int(byte[1], 16)]) if byte else name.replace(SPACE, " ").encode()


def _parts(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The decoders of a sequence, or the only one."""
    yield decoder
    for part in decoder.get("decoders", []):
        yield from _parts(part)


def tokenizer_file(folder: Path) -> Path:
    """The tokenizer of a run: tokenizer.json if the run has no tokenizer.model."""
    names = [kind.FILE for kind in (Tokenizer, JsonTokenizer) if (folder / kind.FILE).exists()]
    return folder / (names or [Tokenizer.FILE])[0]


def open_tokenizer(content: bytes, file: Path, about: Fields) -> Tokenizer:
    """The tokenizer in `file`, of which `content` was read; `about` has the vocabulary and the end of document."""
    if file.name == Tokenizer.FILE:
        return Tokenizer(content, origin=str(file))
    return JsonTokenizer(content, about.whole("end_of_document"), about.whole("vocabulary"), str(file))
