"""Export to GGUF, the file that llama.cpp runs: the model with the same logits, the tokenizer with the same ids.

A model without query-key norm has Llama's architecture, one with it Qwen3's. For Qwen3, llama.cpp rotates component i
of the first half of a head with component i of the second, as minitx does; for Llama it rotates neighbours.

It has two tokenizers of SentencePiece's. Both write a space as U+2581, so that character itself becomes a space.

- "llama" is for BPE and char. It makes the token of the highest score first, and unknown characters become bytes.
- "t5" is for unigram and word. It adds scores in float64, as `tokenizers` does, see `tokenizer_json`. Outside ASCII, an
  unknown character becomes the unknown token.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.tokenizer import SPACE, Tokenizer
from minitx.interop.hf import exported_config, renamed_parameters
from minitx.interop.llama2c import interleaved
from minitx.interop.tokenizer_json import tokenizer_files
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.files import check_writable, replacing, writing

NORMAL, UNKNOWN = 1, 2
"""Types of tokens; GGUF has the numbers of SentencePiece."""
MARK = re.compile(r"[<>\[\]].*[^\W\d_]|[^\W\d_].*[<>\[\]]")
"""A bracket and a letter. The trainer makes no such tokens, so no two tokens of text merge to a name like <0x41>."""
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Programs for chats continue the message. Without a template, they write marks around it that no text here has."""


class Vocabulary(NamedTuple):
    """A tokenizer as llama.cpp reads it."""

    kind: str
    """llama or t5."""
    tokens: list[str]
    scores: list[float]
    types: list[int]


def check_name(name: str) -> None:
    """Raise `UserError` unless `name` is that of a GGUF file that can be written, and the gguf package is there."""
    require(name.endswith(".gguf"), f"{name} is no GGUF file: end its name with .gguf, such as model.gguf.")
    check_writable(name)
    require(Path(name).is_file() or not Path(name).exists(), f"{name} is a pipe or a device: name a plain file.")
    library()


def library() -> Any:
    """The gguf package, which is an extra; raises UserError where it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise UserError("A GGUF file needs the package gguf: install it with pip install minitx[gguf].") from error
    return gguf


def export_gguf(model: Transformer, tokenizer: Tokenizer, file: Path, title: str) -> bool:
    """Write model and tokenizer in float32, as a whole; whether llama.cpp reads unknown characters as bytes.

    `title` is the model's name inside the file. Raises UserError for a model or a tokenizer that llama.cpp lacks.
    """
    gguf, config = library(), model.config
    architecture = exported_config(config, model.vocab_size, tokenizer.end_of_document)["model_type"]
    for name, value in {"head_width": config.head_width, "rope_scaling": config.rope_scaling}.items():
        remedy = "export it for transformers instead"
        require(value is None, f"The model has model.{name} {value}, which minitx does not write as GGUF: {remedy}.")
    vocabulary = llama_vocabulary(tokenizer)
    with writing(file), replacing(Path(os.path.realpath(file))) as draft:
        writer = gguf.GGUFWriter(draft, architecture)
        writer.add_name(
            re.sub("(?i)(phi)(-?3)", r"\1 \2", title)
        )  # with phi3 in its name, llama.cpp wants a token </s>
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_vocab_size(model.vocab_size)
        writer.add_context_length(config.context_length)
        writer.add_block_count(config.n_layer)
        writer.add_embedding_length(config.d_model)
        writer.add_feed_forward_length(config.ff_width)
        writer.add_head_count(config.n_head)
        writer.add_head_count_kv(config.kv_heads)
        writer.add_key_length(config.d_head)
        writer.add_value_length(config.d_head)
        writer.add_rope_dimension_count(config.d_head)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        add_vocabulary(writer, vocabulary, tokenizer.end_of_document)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.n_layer)
        for name, weight in renamed_parameters(model).items():
            if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                weight = interleaved(weight, config.d_head)
            writer.add_tensor(names.get_name(name, [".weight"]), weight.detach().float().cpu().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return vocabulary.kind == "llama"


def add_vocabulary(writer: Any, vocabulary: Vocabulary, end_of_document: int) -> None:
    """Write the tokenizer. Texts stay as they are: no token and no space comes before them."""
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_unk_token_id(vocabulary.types.index(UNKNOWN))
    writer.add_bos_token_id(end_of_document)  # where an empty prompt begins
    writer.add_eos_token_id(end_of_document)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def llama_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The tokenizer for llama.cpp; raises UserError where it would give other ids."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    require(
        not isinstance(tokenizer, JsonTokenizer),
        "The tokenizer is the tokenizer.json of another model, which minitx does not write as GGUF: export it for "
        "transformers instead.",
    )
    require(
        "tokenizer.json" in tokenizer_files(tokenizer),
        "The tokenizer has no exact form in llama.cpp, as those of older versions have none: train a new run.",
    )
    model = ModelProto.FromString(tokenizer.proto)
    tokens, types = [piece.piece for piece in model.pieces], [piece.type for piece in model.pieces]
    of_text = {piece.piece for piece in model.pieces if piece.type in (piece.NORMAL, piece.USER_DEFINED)}
    marks = [name for name in sorted(of_text) if MARK.search(name)]
    require(
        not marks,
        f"The tokenizer has the text {''.join(marks[:1])} as a token, which llama.cpp may take for a control token: "
        "train a new run.",
    )
    is_unigram = model.trainer_spec.model_type == TrainerSpec.UNIGRAM
    for byte in range(1, 128) if is_unigram else ():
        if chr(byte).replace(" ", SPACE) not in of_text:
            id = tokenizer.byte_tokens[byte]
            tokens[id], types[id] = chr(byte), NORMAL
    return Vocabulary("t5" if is_unigram else "llama", tokens, [piece.score for piece in model.pieces], types)
