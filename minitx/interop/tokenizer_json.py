"""A tokenizer as tokenizer.json of the `tokenizers` library, with equal ids for every text.

Three things could make the two libraries differ:

- Names: the text "<0x41>" is not the byte token of that name. BPE builds no such token, because no merge leads to it. A
  unigram model would, so its texts are first written in bytes (as GPT-2 does, with a letter for each byte).
- Order: SentencePiece makes the BPE token of the highest score first, and the leftmost of equal ones. Neighbours never
  change from which two parts a token grows, so one merge for each token is exact.
- Rounding: SentencePiece adds scores in float32, tokenizers in float64. They agree on multiples of 1/GRID.
"""

import re
from itertools import pairwise
from typing import Any

from minitx.data.json_tokenizer import LETTERS, JsonTokenizer
from minitx.data.tokenizer import GRID, LEAST_SCORE, MAX_LINE, SPACE, Tokenizer

BYTE_SCORE, NEVER = -1e6, -1e12
"""Scores of byte tokens, and of tokens that no text has: below any known character, and below any line of bytes."""


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The content of tokenizer_config.json, and of tokenizer.json where the library can follow the model exactly.

    With the first alone, AutoTokenizer fails, as it should; with neither, it would make an empty Qwen tokenizer.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    model = ModelProto.FromString(tokenizer.proto)
    kind, names = model.trainer_spec.model_type, [piece.piece.replace(SPACE, " ") for piece in model.pieces]
    of_text = [piece.type in (piece.NORMAL, piece.USER_DEFINED) for piece in model.pieces]
    scores = {name: piece.score for name, piece, is_text in zip(names, model.pieces, of_text, strict=True) if is_text}
    alone = {"\n", *(piece.piece for piece in model.pieces if piece.type == piece.USER_DEFINED)}
    long = [name for name in scores if len(name) > 1]
    conditions = [
        kind in (TrainerSpec.UNIGRAM, TrainerSpec.BPE, TrainerSpec.CHAR)
        and not model.normalizer_spec.precompiled_charsmap,
        len({*names}) == len(names) and not any(piece.type == piece.UNUSED for piece in model.pieces),
        all(character in scores for name in long for character in name),  # so only unknown characters become bytes
        not any(symbol in name for name in long for symbol in alone),
        (kind == TrainerSpec.UNIGRAM) == (scores.get("\n", 0) < 0),  # see `scores_on_grid`
    ]
    lines: dict[str, Any] = {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False}
    if kind == TrainerSpec.UNIGRAM:
        conditions += [LEAST_SCORE <= score < 0 and score * GRID % 1 == 0 for score in scores.values()]
        lines["pattern"] = {"Regex": rf"\n|[^\n]{{1,{MAX_LINE}}}"}
        as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        before, after = {"type": "Sequence", "pretokenizers": [lines, as_bytes]}, as_bytes
        rules = unigram(names, scores)
    else:
        conditions += [len({scores[name] for name in long}) == len(long)]
        before, after = lines, {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
        vocabulary = {name: i for i, name in enumerate(names)}
        rules = {"type": "BPE", "vocab": vocabulary, "merges": merges_of(scores), "byte_fallback": True}
    end = names[tokenizer.end_of_document]
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end}
    about |= {"split_special_tokens": True, "clean_up_tokenization_spaces": False}  # text is never a control token
    content = {"version": "1.0", "added_tokens": [], "pre_tokenizer": before, "decoder": after, "model": rules}
    return {"tokenizer_config.json": about} | ({"tokenizer.json": content} if all(conditions) else {})


def config_file(tokenizer: JsonTokenizer) -> dict[str, dict[str, Any]]:
    """The content of tokenizer_config.json beside a tokenizer.json of another model."""
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return {"tokenizer_config.json": about | tokenizer.control_names}


def unigram(names: list[str], scores: dict[str, float]) -> dict[str, Any]:
    """The library's unigram model; `scores` has the tokens of text."""
    written = {name: "".join(LETTERS[byte] for byte in name.encode()) for name in scores}
    taken, vocabulary = {*written.values()}, []
    for name in names:
        byte = re.fullmatch("<0x([0-9A-F]{2})>", name)
        letter = LETTERS[int(byte[1], 16)] if byte else name
        if name in scores:
            vocabulary.append([written[name], scores[name]])
        elif byte and letter not in taken:
            vocabulary.append([letter, BYTE_SCORE])
        else:  # a control token, or the byte of a character that has a token
            vocabulary.append([name, NEVER])
    return {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False}


def merges_of(scores: dict[str, float]) -> list[list[str]]:
    """The two tokens that each token of a BPE model grows from, in order of its score; some grow from none."""
    merges = []
    for name in sorted(scores, key=lambda name: -scores[name]):
        parts = list(name)
        while len(parts) > 2:
            pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
            if not pairs:
                break
            _, i = min(pairs)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append(parts)
    return merges
