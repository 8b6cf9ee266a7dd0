"""Snapshots: they read back as written, a foreign file gives one sentence, and writing is nearly free."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from minitx.heads import snapshots
from minitx.heads.packing import SMALL, encode_weights, pairs, reduce
from minitx.heads.snapshots import (
    MAGIC,
    OLDER,
    PlacedLink,
    ShownProbe,
    encode,
    extract,
    open_snapshot,
    read_header,
)
from minitx.system.errors import UserError
from minitx.system.files import json_bytes, write_atomically
from tests.tensorboard.test_pictures import causal


def patterns(layers: int, heads: int, seq: int, seed: int = 0) -> Any:
    """(layer, head, query, key): random causal patterns."""
    weights = np.tril(np.random.default_rng(seed).random((layers, heads, seq, seq), dtype=np.float32) ** 6 + 1e-6)
    return weights / weights.sum(axis=-1, keepdims=True)


def probe(seq: int, layers: int = 2, heads: int = 3, **more: Any) -> ShownProbe:
    return ShownProbe("a text", [f"t{i}" for i in range(seq)], patterns(layers, heads, seq), **more)


def header_of(content: bytes) -> dict[str, Any]:
    return read_header(io.BytesIO(content))


def changed(content: bytes, **changes: Any) -> bytes:
    """A snapshot with other entries of its header, as if it had been written so."""
    file = io.BytesIO(content)
    return snapshots._assemble({**read_header(file), **changes}, [file.read()])


def part_of(content: bytes, probe: int, heads: Sequence[int] = ()) -> bytes:
    file = io.BytesIO(content)
    return extract(file, read_header(file), probe, heads)


def read_patterns(content: bytes, probe: int = 0) -> Any:
    """(layer, head, query, key): the patterns of a probe with all its heads, decoded by the described format."""
    part = part_of(content, probe, range(4096))
    header = header_of(part)
    heads, seq = header["layers"] * header["heads"], len(header["probes"][0]["tokens"])
    levels = np.frombuffer(part[-heads * seq * (seq + 1) // 2 :], np.uint8).reshape(heads, -1)
    weights = np.zeros((heads, seq, seq))
    weights[:, *np.tril_indices(seq)] = (levels / 255) ** 2
    return weights.reshape(header["layers"], header["heads"], seq, seq)


def forged(**changes: Any) -> bytes:
    """A snapshot without checksums, of one head and one token, whose header is changed."""
    header = {"step": 1, "layers": 1, "heads": 1, "probes": [{"text": "a", "tokens": ["a"]}], **changes}
    text = json.dumps(header).encode()
    return OLDER + struct.pack("<I", len(text)) + text + b"\xff"


def sealed(**changes: Any) -> bytes:
    """As `forged`, but the header has its right checksum."""
    text = forged(**changes)[len(OLDER) + 4 : -1]
    return MAGIC + struct.pack("<II", len(text), crc32(text)) + text + b"\xff"


def read_all(run: Path, step: int) -> list[bytes]:
    """Every probe of a run's snapshot with all its heads, read as the tab does."""
    with open_snapshot(run, step) as (file, header):
        start = file.tell()
        return [extract(file, header, probe, range(99)) for probe in range(len(header["probes"])) if file.seek(start)]


@pytest.mark.parametrize("seq", [1, 2, 30, SMALL, SMALL + 1, 150])
def test_patterns_come_back_nearly_as_they_were(seq: int) -> None:
    written = probe(seq)
    back = read_patterns(encode(7, [probe(5), written]), probe=1)
    assert back.shape == written.patterns.shape
    np.testing.assert_allclose(back, written.patterns, atol=0.00393)  # half a level near p = 1: 1 - (254.5 / 255)²
    weak = written.patterns < 0.01
    assert np.abs(back - written.patterns)[weak].max(initial=0) < 0.0004


def test_even_attention_over_many_tokens_does_not_vanish() -> None:
    """A byte of p itself would be 0 for 1 / 512."""
    even = np.tril(np.ones((1, 1, 512, 512), np.float32)) / np.arange(1, 513, dtype=np.float32)[:, None]
    back = read_patterns(encode(0, [ShownProbe("", ["a"] * 512, even)]))
    np.testing.assert_allclose(back[0, 0, -1], 1 / 512, rtol=0.06)


def test_a_long_text_is_reduced_to_the_largest_weight_of_each_block() -> None:
    seq = 150  # blocks of 3 tokens
    levels = encode_weights(patterns(1, 1, seq))
    small = reduce(levels)[0, 0]
    assert small.shape == (50, 50)
    for query, key in ((0, 0), (49, 0), (49, 49), (20, 7)):
        assert small[query, key] == levels[0, 0, 3 * query : 3 * query + 3, 3 * key : 3 * key + 3].max()


def test_one_probe_and_some_heads_can_be_taken_out() -> None:
    first, second = probe(5), probe(100, links=[PlacedLink("pronoun", range(9, 10), range(2, 4))])
    content = encode(7, [first, second], {"entropy": np.arange(6.0).reshape(2, 3)})
    part = part_of(content, 1, heads=[4, 1, 99])
    header = header_of(part)
    assert header["probes"][0]["whole"] == [1, 4]
    assert header["probes"][0]["links"] == [{"name": "pronoun", "query": [9, 10], "key": [2, 4]}]
    assert header["scores"] == {"entropy": [0, 1, 2, 3, 4, 5]}
    packed = np.frombuffer(part[-2 * pairs(100) :], np.uint8).reshape(2, -1)
    expected = encode_weights(second.patterns.reshape(6, 100, 100))[[1, 4]]
    np.testing.assert_array_equal(packed, expected[:, *np.tril_indices(100)])
    again = part_of(part, 0, heads=[4])
    assert again[-pairs(100) :] == part[-pairs(100) :]
    with pytest.raises(UserError, match="no probe 2"):
        part_of(content, 2)


def test_what_is_not_a_number_is_left_empty() -> None:
    header = header_of(
        encode(1, [probe(2, 1, 2)], {"induction": np.array([[np.nan, 0.5]])}, {"induction": float("nan")})
    )
    assert header["scores"] == {"induction": [None, 0.5]} and header["chance"] == {"induction": None}


def test_lone_surrogates_do_no_harm() -> None:
    assert header_of(encode(1, [ShownProbe("\ud800", ["\udfff"], causal(1, 1)[None])]))["probes"][0]["tokens"] == ["?"]


@pytest.mark.parametrize("cut", [0, 5, len(MAGIC), len(MAGIC) + 2, 60, -1])
def test_a_file_cut_short_is_noticed(cut: int) -> None:
    content = encode(1, [probe(4)])
    with pytest.raises(UserError, match="cut short|not a snapshot"):
        header_of(content[:cut])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a snapshot"),
        (b"\x89PNG\r\n" * 20, "not a snapshot"),
        (OLDER + struct.pack("<I", 2**32 - 1) + b"{}", "declares more"),
        (OLDER + struct.pack("<I", 4) + b"nope", "damaged"),
        (OLDER + struct.pack("<I", 2) + b"[]", "damaged"),
        (OLDER + struct.pack("<I", 2) + b"\xff\xff", "damaged"),
        (OLDER + struct.pack("<I", 100_000) + b"[" * 100_000, "damaged"),
        (sealed(probes=[{"text": "a", "tokens": ["a"]}]), "checksums is missing"),
        (sealed(probes=[{"text": "a", "tokens": ["a"], "checksums": [1, 2]}]), "one checksum for every part"),
        (forged() + b"x", "longer"),
        (forged(layers=2), "cut short"),
        (forged(layers=10**9), "damaged"),
        (forged(layers=4096, heads=4096), "damaged"),
        (forged(layers=True), "damaged"),
        (forged(heads=-1), "damaged"),
        (forged(step="1"), "damaged"),
        (forged(step=10**30), "damaged"),
        (forged(probes=[]), "damaged"),
        (forged(probes=[{"text": "a"}]), "tokens is missing"),
        (forged(probes=[{"text": "a", "tokens": [1]}]), "damaged"),
        (forged(probes=[{"text": "a", "tokens": []}]), "damaged"),
        (forged(probes=[{"text": "a", "tokens": ["a"] * 9000}]), "damaged"),
        (forged(probes=[{"text": "a", "tokens": ["a"] * 100}]), "cut short"),
        (forged(probes=[{"text": "a", "tokens": ["a"], "links": [{"name": "x", "query": [0, 2], "key": [0, 1]}]}]),
         "damaged"),
        (forged(probes=[{"text": "a", "tokens": ["a"], "whole": [5]}]), "damaged"),
        (forged(scores={"x": [1, 2]}), "damaged"),
        (forged(scores={"x": ["<b>"]}), "damaged"),
        (forged(scores={"x": [10**400]}), "damaged"),
        (forged(scores=[1]), "damaged"),
        (forged(chance={"x": float("inf")}), "damaged"),
        (forged(roles=[1]), "damaged"),
    ],
)  # fmt: skip
def test_what_a_stranger_wrote_ends_in_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        header_of(content)
    assert str(raised.value).endswith(".") and len(str(raised.value)) < 200


def test_no_damage_is_shown(tmp_path: Path) -> None:
    """A flipped bit in every eleventh byte, a cut, and two heads in each other's place."""
    content = encode(1, [probe(5, 1, 2), probe(66, 1, 2)])
    snapshots.write(tmp_path, 1, content)
    whole, file = read_all(tmp_path, 1), snapshots.path(tmp_path, 1)
    head = pairs(66)
    damaged = [content[: -2 * head] + content[-head:] + content[-2 * head : -head]]
    assert damaged[0] != content
    for place in range(0, len(content), 11):
        flipped = bytes([content[place] ^ 1 << place % 8])
        damaged.append(content[:place] + flipped + content[place + 1 :])
    damaged += [content[:place] for place in range(0, len(content), 50)]
    for changed in damaged:
        file.write_bytes(changed)
        with pytest.raises(UserError, match=r"^Step 1: .*(damaged|cut short|declares|not a snapshot).*\.$"):
            read_all(tmp_path, 1)
    file.write_bytes(content)
    assert read_all(tmp_path, 1) == whole


def test_a_head_that_is_not_asked_for_may_be_damaged() -> None:
    """Only what is read is checked, so that a request stays quick."""
    content = bytearray(encode(1, [probe(100, 1, 2)]))
    content[-1] ^= 1
    part_of(bytes(content), 0, [0])
    with pytest.raises(UserError, match="do not fit their checksums"):
        part_of(bytes(content), 0, [1])


def test_a_snapshot_of_another_step_or_run_is_told(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_atomically(tmp_path / name / "data.json", json_bytes({"id": name}))
        for step in (1, 2):
            snapshots.write(tmp_path / name, step, encode(step, [probe(2)], run=name))
    read_all(tmp_path / "a", 1)
    for source, sentence in ((tmp_path / "a", "Step 1: .*step 2"), (tmp_path / "b", "Step 1: .*another run")):
        file = snapshots.path(source, 2 if source.name == "a" else 1)
        snapshots.path(tmp_path / "a", 1).write_bytes(file.read_bytes())
        with pytest.raises(UserError, match=sentence):
            read_all(tmp_path / "a", 1)
    (tmp_path / "a" / "data.json").unlink()  # whose run this is cannot be known
    read_all(tmp_path / "a", 1)


def test_snapshots_without_checksums_still_show(tmp_path: Path) -> None:
    """As older versions wrote them, also in a run that has an id by now."""
    write_atomically(tmp_path / "data.json", json_bytes({"id": "new"}))
    snapshots.write(tmp_path, 1, in_format(1, encode(1, [probe(3)], run="another")))
    assert len(read_all(tmp_path, 1)) == 1


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """A header that declares 137 GB is refused by the size of its file, and so is a file of 1 GB that is a hole."""
    import tracemalloc

    big = forged(layers=64, heads=64, probes=[{"text": "", "tokens": ["a"] * 8192}])
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        content = forged(heads=30, probes=[{"text": "", "tokens": ["a"] * 8192}])[:-1]
        file.write(content)
        file.truncate(len(content) + 30 * (pairs(64) + pairs(8192)))
    tracemalloc.start()
    with sparse.open("rb") as file, pytest.raises(UserError, match="fewer heads"):
        extract(file, read_header(file), 0, range(30))
    with pytest.raises(UserError, match="cut short"):
        part_of(big, 0, range(4096))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="patterns"):
        encode(1, [ShownProbe("", ["a"], patterns(1, 1, 2))])
    with pytest.raises(ValueError, match="score"):
        encode(1, [probe(2)], {"entropy": np.zeros((3, 2))})


def test_a_run_lists_writes_and_forgets_its_steps(tmp_path: Path) -> None:
    assert snapshots.steps(tmp_path) == []
    for step in (100, 5, 2_000_000):
        snapshots.write(tmp_path, step, encode(step, [probe(2)]))
    (tmp_path / "attention" / "step-00x.heads").write_text("")
    drafts = [tmp_path / "attention" / name for name in (".step-000100.heads-1", ".step-000100.heads-old-1", ".mine-1")]
    for draft in drafts:
        draft.write_text("")
    snapshots.path(tmp_path, 200).mkdir()
    assert snapshots.steps(tmp_path) == [5, 100, 200, 2_000_000]
    with snapshots.path(tmp_path, 100).open("rb") as file:
        assert read_header(file)["step"] == 100
    snapshots.forget_after(tmp_path, 100)
    assert snapshots.steps(tmp_path) == [5, 100]
    assert [draft.exists() for draft in drafts] == [False, False, True], "killed processes left two"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "attention").symlink_to(tmp_path / "attention")
    with pytest.raises(UserError, match="is a link"):
        snapshots.forget_after(tmp_path / "run", 0)


def test_a_snapshot_that_cannot_be_written_leaves_no_draft(tmp_path: Path) -> None:
    snapshots.path(tmp_path, 5).mkdir(parents=True)
    with pytest.raises(OSError, match=r"step-000005\.heads"):
        snapshots.write(tmp_path, 5, encode(5, [probe(2)]))
    assert list((tmp_path / "attention").iterdir()) == [snapshots.path(tmp_path, 5)]


def test_a_snapshot_is_small(tmp_path: Path) -> None:
    """4 layers × 4 heads × 64 tokens with scores: a thousand of them stay below 40 MB."""
    scores = {name: np.random.default_rng(0).random((4, 4)) for name in "abcdefg"}
    snapshots.write(tmp_path, 0, encode(0, [probe(64, 4, 4)], scores, dict.fromkeys(scores, 0.1)))
    assert snapshots.path(tmp_path, 0).stat().st_size < 40_000


def in_format(version: int, content: bytes) -> bytes:
    """A snapshot as an older version wrote it, byte for byte but for its time."""
    header, length = header_of(content), int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
    del header["scored_on"]
    for entry in header["probes"]:
        for name in ("words", "dropped", "predictions", "scores", "chance", "roles"):
            del entry[name]
        if version == 1:
            del entry["checksums"]
    if version == 1:
        del header["run"]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    checksum = [] if version == 1 else [struct.pack("<I", crc32(text))]
    magic = f"minitx attention {version}\n".encode()
    return b"".join([magic, struct.pack("<I", len(text)), *checksum, text, content[len(MAGIC) + 8 + length :]])


@pytest.mark.parametrize("version", [1, 2])
def test_older_formats_stay_readable(version: int, tmp_path: Path) -> None:
    """What they lack is empty, and the tab gets them in today's format."""
    written = encode(1, [probe(3), probe(80)], {"entropy": np.zeros((2, 3))}, roles=[["induction"] * 3] * 2)
    older = in_format(version, written)
    assert older[:19] == f"minitx attention {version}\n".encode() != written[:19]
    snapshots.write(tmp_path, 1, older)
    for place, part in enumerate(read_all(tmp_path, 1)):
        np.testing.assert_array_equal(read_patterns(part), read_patterns(written, place))
        header = header_of(part)
        (entry,) = header["probes"]
        assert part.startswith(MAGIC) and header["scored_on"] == "" and header["roles"] == ["induction"] * 6
        assert (entry["words"], entry["dropped"], entry["predictions"]) == ([], 0, None)
        assert (entry["scores"], entry["chance"], entry["roles"]) == ({}, {}, [])
    flipped = bytearray(older)
    flipped[-1] ^= 1
    snapshots.write(tmp_path, 1, bytes(flipped))
    if version == 2:
        with pytest.raises(UserError, match="do not fit their checksums"):
            read_all(tmp_path, 1)


def test_what_a_probe_itself_shows_comes_back() -> None:
    predictions = {
        "tokens": [["a", "b"], ["c", "d"], ["e", "f"]],
        "probabilities": [[0.5, 0.25], [0.125, None], [1, 0]],
        "loss": [0.25, 3, None],
        "real": [1, None, None],
    }
    scores = {"induction": np.array([[0.123456, np.nan]])}
    more: dict[str, Any] = {"words": [0, 2], "dropped": 7, "predictions": predictions, "scores": scores}
    shown = probe(3, 1, 2, chance={"induction": float("nan")}, roles=[["first token", "induction"]], **more)
    header = header_of(part_of(encode(1, [probe(2, 1, 2), shown], scored_on="validation text"), 1))
    assert header["scored_on"] == "validation text"
    (entry,) = header["probes"]
    assert (entry["words"], entry["dropped"], entry["predictions"]) == ([0, 2], 7, predictions)
    assert entry["scores"] == {"induction": [0.1235, None]} and entry["chance"] == {"induction": None}
    assert entry["roles"] == ["first token", "induction"]
    with pytest.raises(ValueError, match="score"):
        encode(1, [probe(2, 1, 2, scores={"entropy": np.zeros((2, 2))})])


@pytest.mark.parametrize(
    "changes",
    [
        {"words": [1]},
        {"words": [0, 1]},
        {"words": [0, 0]},
        {"words": [True]},
        {"words": ["0"]},
        {"words": {}},
        {"dropped": -1},
        {"dropped": 1.5},
        {"predictions": []},
        {"predictions": {}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[0.5]]}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[0.5]], "loss": []}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[0.5]], "loss": ["x"]}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[0.5, 0.5]], "loss": [None]}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[0.5]], "loss": [None], "real": [-1]}},
        {"predictions": {"tokens": [[1]], "probabilities": [[0.5]], "loss": [None]}},
        {"predictions": {"tokens": ["a"], "probabilities": [[0.5]], "loss": [None]}},
        {"predictions": {"tokens": [["a"] * 99], "probabilities": [[0.5] * 99], "loss": [None]}},
        {"predictions": {"tokens": [["a"]], "probabilities": [[float("nan")]], "loss": [None]}},
        {"scores": {"x": [1, 2]}},
        {"chance": {"x": "y"}},
        {"roles": ["a", "b"]},
    ],
)
def test_what_a_stranger_wrote_of_a_probe_ends_in_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"The header of this snapshot is damaged: probes\.0") as raised:
        header_of(forged(probes=[{"text": "a", "tokens": ["a"], **changes}]))
    assert str(raised.value).endswith(".") and len(str(raised.value)) < 200
