"""Where a generated text stops."""

import codecs
from collections.abc import Sequence
from typing import Literal

StopReason = Literal["end", "stop", "length"]


class StoppingText:
    """The text of one sample as it grows: takes the bytes of each token, returns the text to show.

    Bytes wait until they are a whole character. Text waits while it could be the beginning of a stop text. Of several
    stop texts the first to be complete counts, however the text is cut into tokens.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""  # shorter than the longest stop text, so that the work for a token does not grow
        self.pieces: list[str] = []
        self.tokens = 0
        self.stop_reason: StopReason | None = None

    def write(self, data: bytes) -> str:
        """Add the bytes of a token; return the text to show now. It is the last if `stop_reason` is set."""
        self.tokens += 1
        return self.release(self.decoder.decode(data), waiting=True)

    def end(self, reason: Literal["end", "length"]) -> str:
        """End the text; return the rest of it. For `end`, the end-of-document token is counted."""
        self.tokens += reason == "end"
        text = self.release(self.decoder.decode(b"", final=True), waiting=False)
        self.stop_reason = self.stop_reason or reason
        return text

    def release(self, text: str, waiting: bool) -> str:
        """Add whole characters; return as much of all held text as can be shown. waiting: more text may follow."""
        text = self.held + text
        spans = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if spans:
            shown = min(spans)[1]
            self.stop_reason = "stop"
        elif waiting:
            shown = len(text) - max((overlap(text, stop) for stop in self.stops), default=0)
        else:
            shown = len(text)
        text, self.held = text[:shown], text[shown:]
        self.pieces.append(text)
        return text


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
