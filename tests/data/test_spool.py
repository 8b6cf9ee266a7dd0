"""The spool: pieces join to the same documents, and can be read again as often as needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.sources import Piece
from minitx.data.spool import Spool, cut
from minitx.system.errors import UserError


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text("ab \n日", max_size=40), st.booleans())), st.integers(1, 9))
def test_pieces_join_to_the_documents(pieces: list[tuple[str, bool]], size: int) -> None:
    joined, wanted = [""], [""]
    for text, last in pieces:
        wanted[-1] += text
        wanted += [""] * last
    for piece in cut((Piece(*piece) for piece in [*pieces, ("", True)]), size):
        assert len(piece.text) <= size
        joined[-1] += piece.text
        joined += [""] * piece.last
    assert joined == [*wanted, ""]


def test_a_spool_counts_and_gives_the_text_back_again_and_again(tmp_path: Path) -> None:
    pieces = [Piece("ab", False), Piece("c\n日", True), Piece("de", True, only_trains=True)]
    sizes: list[int] = []
    spool = Spool(tmp_path / "spool", iter(pieces), sizes.append)
    assert (spool.documents, spool.bytes, spool.only_train) == ([5, 2], 9, {1})
    assert sum(sizes) == 9
    for _ in range(2):
        assert list(spool) == [("abc\n日", True, False), ("de", True, True)]


def test_a_lone_surrogate_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lone surrogate .U.D800."):
        Spool(tmp_path / "spool", iter([Piece("a\ud800", True)]), lambda _: None)
