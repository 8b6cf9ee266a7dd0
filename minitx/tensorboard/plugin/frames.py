"""Messages between TensorBoard and its worker: four bytes with the length, little-endian, then the content."""

from typing import IO

ANSWER, ERROR = b"=", b"!"
"""First byte of what the worker sends: an answer follows, or a sentence that says why there is none."""


def send(stream: IO[bytes], content: bytes) -> None:
    """Write a message; raises OSError where the reader has gone."""
    stream.write(len(content).to_bytes(4, "little") + content)
    stream.flush()


def receive(stream: IO[bytes], most: int) -> bytes | None:
    """The next message; None where the stream ends, and nothing of a message of more than `most` bytes."""
    size = stream.read(4)
    length = int.from_bytes(size, "little")
    if len(size) < 4:
        return None
    if length > most:
        return b""
    content = stream.read(length)
    return content if len(content) == length else None
