"""A digest of each row of a feature, which lies beside it: XXH3, 64 bits, which costs a small part of the copy that a batch is.

It is compared when a row is read, so that the digest of a file of many gigabytes need not be. It finds damage, not malice.
"""

from __future__ import annotations

import numpy as np
from xxhash import xxh3_64_intdigest

ROWS = np.dtype(np.uint64)
# What NumPy and JSON raise for damaged files of a cache.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError)


def rows_name(feature: str) -> str:
    """The file with the digests of a feature's rows, uint64 (V, N)."""
    return f"{feature}.rows.npy"


def digests_of(rows: np.ndarray) -> np.ndarray:
    """The digest of each row: (B, ...) -> uint64 (B,)."""
    return np.fromiter((xxh3_64_intdigest(row) for row in np.ascontiguousarray(rows)), ROWS, len(rows))


def different(rows: np.ndarray, digests: np.ndarray) -> list[int]:
    """The places of rows (B, ...) whose digest is not the one in `digests` (B,). A memory map is read row by row."""
    return [place for place, (row, digest) in enumerate(zip(rows, digests.tolist(), strict=True)) if xxh3_64_intdigest(row) != digest]
