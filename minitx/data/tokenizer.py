"""Text to token ids and back with SentencePiece, losing nothing.

`decode` gives back exactly what `encode` was given, for every string without lone surrogates. Text never becomes a
control token: end of document, or the unknown token that SentencePiece insists on.

A line has the same tokens wherever it stands. SentencePiece adds the scores of a unigram model in float32, where
rounding would decide between equal splits. So scores are multiples of 1/GRID, and long texts are encoded in parts.
"""

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from minitx.config import TokenizerConfig
from minitx.data.words import labels
from minitx.system.errors import UserError, require
from minitx.system.files import read_file, sha256, write_atomically

Ids = np.ndarray[Any, np.dtype[np.int32]]

END_OF_DOCUMENT = "<|endoftext|>"
SPACE = "\u2581"  # how SentencePiece writes a space inside a token; in a text the character needs care
RESERVED = re.compile("[\n\0\u2581\u2585]")  # SentencePiece's trainer drops whole sentences that hold the last two
GRID, MAX_LINE, LEAST_SCORE = 64, 8192, -22
"""A sum of MAX_LINE scores is exact if they are multiples of 1/GRID and at least LEAST_SCORE. A line has at most one
score for each character. Unknown characters get 10 less than the least."""
PARTS = re.compile(rb"(?s:.{0,%d}\n)|(?:[^\n\x80-\xbf][\x80-\xbf]*){1,%d}" % (MAX_LINE - 1, MAX_LINE))
"""As many whole lines as fit into MAX_LINE bytes, or at most MAX_LINE characters of one line."""
SPACE_ALONE = re.compile(f"({SPACE})".encode())
WORD = re.compile(r" ?\w+(?:['’-]\w+)*| ?[^\w\s]")
"""A word such as "didn't", or one other character, with the space before it."""
MAX_WORD = 64  # characters; longer ones are no words, but would fill the model file
MAX_BYTES = 16 << 20
"""Of a model file; the largest vocabularies take 5 MB."""
MAX_SENTENCE = 4096  # characters; the trainer takes no sentence of unbounded length
TRIAL = "  two  spaces \n\tﬁ é \u2581 日 \U0010ffff <s></s><unk><0x0A> \0 "

# Keeps the text unchanged: no Unicode normalisation, no space added or removed, bytes for unknown characters.
LOSSLESS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    "allow_whitespace_only_pieces": True,
    "required_chars": SPACE,  # a space without a token would come back as U+2581
}
PIECES: dict[str, Any] = {"unk_id": 0, "eos_id": 1, "eos_piece": END_OF_DOCUMENT, "bos_id": -1, "pad_id": -1}
# The number of threads is stored in the model and orders its sums. With one, equal texts give equal bytes.
QUIET_AND_EXACT: dict[str, Any] = {"num_threads": 1, "minloglevel": 3, "max_sentence_length": 1 << 20}


class Tokenizer:
    """A trained SentencePiece model; `proto` is the content of its file."""

    FILE = "tokenizer.model"
    """Its name in a run folder."""

    def __init__(self, proto: bytes, origin: str = "The tokenizer model") -> None:
        """Raises a `UserError` that begins with `origin` if `proto` is no model, or one that would lose text."""
        from sentencepiece import SentencePieceProcessor

        self.proto = proto
        require(bool(proto), f"{origin} is empty: give a SentencePiece model that minitx wrote.")
        try:
            self._model = SentencePieceProcessor(model_proto=proto)
            self._bytes = self._token_table()
            self._is_on_grid = self._model.get_score(self._model.piece_to_id("\n")) < 0  # see `scores_on_grid`
        except (RuntimeError, ValueError, IndexError) as error:  # ValueError: a token that is not UTF-8
            raise UserError(f"{origin} is not a SentencePiece model: give one that minitx wrote.") from error
        require(
            all(self._model.is_byte(self._byte_id(byte)) for byte in range(256)),
            f"{origin} has no token for each of the 256 bytes, so it would lose text: give one that minitx wrote.",
        )
        require(self._model.eos_id() >= 0, f"{origin} has no end-of-document token: give one that minitx wrote.")
        require(
            self.decode(self.encode(TRIAL)) == TRIAL,
            f"{origin} alters spaces or characters, so it would lose text: give one that minitx wrote.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig) -> Self:
        """Learn a model from `texts`; equal texts give equal bytes.

        SentencePiece keeps all of it in memory, so pass a sample of a large corpus. Char and word need the whole. For
        char, every character of `texts` but U+2581 and NUL becomes a token; for word, see `word_model`. Raises
        `UserError` if vocab_size does not fit the text.
        """
        from sentencepiece import SentencePieceTrainer

        if config.type == "word":
            base = cls.train([], TokenizerConfig("char"))
            return cls(word_model(base.proto, frequent_words(texts), config.vocab_size or base.vocab_size))
        symbols, sentences = ["\n"], _sentences(texts)
        settings: dict[str, Any] = {"vocab_size": config.vocab_size, "character_coverage": 0.9995}
        if config.type == "char":
            characters = set(itertools.chain.from_iterable(texts))
            symbols += ["\u2585"] if "\u2585" in characters else []
            sentences = iter(sorted(c for c in characters if not RESERVED.match(c)) or [" "])
            settings = {"vocab_size": 0x110000 + 512, "character_coverage": 1.0, "hard_vocab_limit": False}
        model = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=sentences,
                model_writer=model,
                model_type=config.type,
                user_defined_symbols=symbols,  # a line break is a token by itself: nothing merges across lines
                **settings,
                **LOSSLESS,
                **PIECES,
                **QUIET_AND_EXACT,
            )
        except RuntimeError as error:
            raise _training_error(config, str(error)) from error
        proto = model.getvalue()
        return cls(scores_on_grid(proto) if config.type == "unigram" else proto)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model file; raises `UserError` if it is missing or damaged."""
        return cls(read_file(Path(path), MAX_BYTES), origin=str(path))

    def save(self, path: str | Path) -> None:
        """Write the model file and flush it to disk."""
        write_atomically(Path(path), self.proto)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without end of document; raises `UserError` for a lone surrogate."""
        return self.encode_batch([utf8(text)])[0].tolist()

    def encode_batch(self, texts: Sequence[bytes]) -> list[Ids]:
        """Token ids of UTF-8 texts. Several threads may call this, for SentencePiece works outside Python's lock."""
        # U+2581 would come back as a space. So texts are encoded around it, and byte tokens put in its place.
        parts = [self._parts(text) for text in texts]
        plain = [part for of_text in parts for part in of_text if part != SPACE.encode()]
        encoded: list[Ids] = self._model.encode(plain, return_type="numpy", num_threads=1)
        if len(encoded) == len(texts):
            return encoded
        space, arrays = np.array([self._byte_id(byte) for byte in SPACE.encode()], np.int32), iter(encoded)
        ids_of = ([space if part == SPACE.encode() else next(arrays) for part in of_text] for of_text in parts)
        return [np.concatenate(ids) for ids in ids_of]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Bytes that form no whole character become U+FFFD; end of document is left out."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, control and byte tokens included."""
        return len(self._bytes)

    @property
    def byte_tokens(self) -> list[int]:
        """The token of every single byte, in order."""
        return [self._byte_id(byte) for byte in range(256)]

    @property
    def end_of_document(self) -> int:
        """The id at the start of a corpus and after every document."""
        return int(self._model.eos_id())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model, in hexadecimal."""
        return sha256(self.proto)

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of a token, perhaps only part of a character."""
        return self._bytes[id]

    def token_text(self, id: int) -> str:
        """A label for pictures: ␣ for a space, ↵ for a line break, <0xE2> for a byte token, \\x1b for Escape."""
        return self._labels[id]

    def token_labels(self, ids: Sequence[int]) -> list[str]:
        """As `token_text` for tokens in a row: a character of several byte tokens stands on its last one, after "·"."""
        together = labels([self._bytes[id] for id in ids])
        return [text if self._bytes[id] else self._labels[id] for id, text in zip(ids, together, strict=True)]

    @cached_property
    def _labels(self) -> list[str]:
        return [labels([self._bytes[i]])[0] or self._piece(i) for i in range(self.vocab_size)]

    def _piece(self, id: int) -> str:
        return str(self._model.id_to_piece(id))

    def _parts(self, text: bytes) -> list[bytes]:
        """What SentencePiece encodes at once: U+2581 by itself, and parts of a text too long to add scores exactly."""
        chunks = PARTS.findall(text) if self._is_on_grid and len(text) > MAX_LINE else [text]
        return [part for chunk in chunks for part in SPACE_ALONE.split(chunk)]

    def _token_table(self) -> list[bytes]:
        ids = range(self._model.get_piece_size())
        pieces = ["" if self._model.is_control(i) else str(self._model.id_to_piece(i)) for i in ids]
        table = [piece.replace(SPACE, " ").encode() for piece in pieces]
        table[self._model.unk_id()] = "\ufffd".encode()
        for byte in range(256):
            table[self._byte_id(byte)] = bytes([byte])
        return table

    def _byte_id(self, byte: int) -> int:
        return int(self._model.piece_to_id(f"<0x{byte:02X}>"))


def scores_on_grid(proto: bytes) -> bytes:
    """A unigram model with scores that are multiples of 1/GRID; the line break becomes a token with such a score."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString(proto)
    for piece in model.pieces:
        piece.score = round(piece.score * GRID) / GRID
        if piece.piece == "\n":  # no other token has one, so its score decides nothing
            piece.type, piece.score = piece.NORMAL, -1.0
    return bytes(model.SerializeToString())


def frequent_words(texts: Iterable[str]) -> list[str]:
    """Words and characters of `texts`, the most frequent first, so that a word never comes before its characters.

    " fox" and "fox" are counted apart. If the texts have only one of them, the other comes last.
    """
    words, characters = Counter[str](), Counter[str]()
    for text in texts:
        words.update(word for word in WORD.findall(text) if len(word) <= MAX_WORD)
        characters.update(text)
    words.update(dict.fromkeys([word[1:] if word[0] == " " else f" {word}" for word in words], 0))
    words.update(characters)
    words.pop(" ", None)  # every model has it
    ranked = sorted(words, key=lambda word: (-words[word], len(word), word))
    return [word for word in ranked if not RESERVED.search(word)]


def word_model(base: bytes, words: Sequence[str], vocab_size: int) -> bytes:
    """A unigram model of `base` and the first of `words`, at most `vocab_size` tokens in all.

    All scores are equal, so the fewest tokens win. Hence a word of the model is one token. Another word becomes parts
    that are in the model: shorter words, characters or bytes.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString(base)
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    for word in words[: vocab_size - len(model.pieces)]:
        model.pieces.add(piece=word.replace(" ", SPACE))
    for piece in model.pieces:
        piece.score = -1.0
    return scores_on_grid(bytes(model.SerializeToString()))


def utf8(text: str) -> bytes:
    """`text` in UTF-8; raises `UserError` for a lone surrogate, which has no place in it."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is "
            "not valid Unicode: take it out."
        ) from error


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in RESERVED.split(text):
            yield from (line[i : i + MAX_SENTENCE] for i in range(0, len(line), MAX_SENTENCE))


def _training_error(config: TokenizerConfig, message: str) -> UserError:
    """A sentence for a complaint of SentencePiece's trainer, such as "Please set it to a value <= 1234."."""
    size = f"tokenizer.vocab_size is {config.vocab_size}, but the text"
    if match := re.search(r"set it to a value <= (\d+)", message):
        size += f" yields at most {match[1]} {config.type} tokens"
        if int(match[1]) >= 300:
            return UserError(f"{size}: take {match[1]} or fewer.")
        return UserError(f"{size}, fewer than the 300 needed: take --tokenizer.type char, or more text.")
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(f"{size} has so many different characters that it needs {match[1]} or more: take {match[1]}.")
    if "sentences_.empty()" in message:
        return UserError("The text holds nothing but line breaks, so there is nothing to train a tokenizer on.")
    return UserError(f"SentencePiece could not train a {config.type} tokenizer on this text ({message.strip()}).")
