"""How processes share an optimiser step out: whole micro-batches first, then the records of one.

With gradient accumulation a step is several micro-batches whose gradients are summed. Four processes and four micro-batches: each process
takes a whole one, so that a contrastive loss keeps its negatives and nothing is gathered. Eight: two processes share each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """`world_size` processes, and `accumulate` micro-batches an optimiser step. Processes with neighbouring ranks share a micro-batch."""

    world_size: int = 1
    accumulate: int = 1

    @property
    def at_once(self) -> int:
        """Micro-batches that are computed at the same time."""
        return math.gcd(self.world_size, self.accumulate)

    @property
    def processes_per_batch(self) -> int:
        """Processes that share the records of one micro-batch."""
        return self.world_size // self.at_once

    @property
    def accumulate_each(self) -> int:
        """Micro-batches of a step that each process takes part in, one after the other."""
        return self.accumulate // self.at_once

    def place_of(self, rank: int) -> tuple[int, int]:
        """(which of the micro-batches that are computed at once, which part of its records) is this rank's."""
        return divmod(rank, self.processes_per_batch)

    def groups(self) -> list[list[int]]:
        """The ranks that share a micro-batch, for each that is computed at once."""
        size = self.processes_per_batch
        return [list(range(start, start + size)) for start in range(0, self.world_size, size)]
