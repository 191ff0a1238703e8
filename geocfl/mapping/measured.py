"""What mapping a scene takes: seconds of each stage, windows, bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from geocfl.scenes import Scene


@dataclass
class Measured:
    """What an attempt at a scene has taken so far; filled in while it runs, so that a failure leaves what it took.

    Attributes:
        seconds: Seconds of each finished stage: ``"open"``, which includes hashing and checking the scene,
            ``"classify"`` and ``"write"``; and ``"read"``, which goes on in another thread during the others.
        stage: The stage that goes on or has failed, one of these; empty before the first.
        digest: The digest of the map; empty while unknown.
        windows: Windows classified.
        bytes_read: Bytes of pixel values that were read, uncompressed.
        bytes_written: Bytes of the products.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    digest: str = ""
    windows: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    @contextmanager
    def reading(self, scene: Scene) -> Iterator[None]:
        """Takes over what was read of a scene during the block."""
        try:
            yield
        except BaseException:
            if scene.read_failed:
                self.stage = "read"
            raise
        finally:
            self.seconds["read"] = self.seconds.get("read", 0.0) + scene.read_seconds
            self.bytes_read += scene.read_bytes

    def add(self, others: Iterable[Measured]) -> None:
        """Adds what other parts of the same scene took."""
        for other in others:
            for stage, seconds in other.seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            self.digest = self.digest or other.digest
            self.windows += other.windows
            self.bytes_read += other.bytes_read
            self.bytes_written += other.bytes_written
