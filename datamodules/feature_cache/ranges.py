"""Which rows of something are done: disjoint ranges [start, end) in order, none next to another."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = list[tuple[int, int]]


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Any ranges as disjoint ones in order."""
    found: Ranges = []
    for start, end in sorted(part for part in ranges if part[0] < part[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def length(ranges: Ranges) -> int:
    """How many rows there are in them."""
    return sum(end - start for start, end in ranges)


def covers(ranges: Ranges, start: int, end: int) -> bool:
    """Whether all rows from `start` to before `end` are in them."""
    return any(first <= start and end <= last for first, last in ranges)


def missing(ranges: Ranges, total: int) -> Ranges:
    """The rows from 0 to before `total` that are not in them."""
    edges = [0, *(edge for part in ranges for edge in part), total]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def part_of(ranges: Ranges, rank: int, count: int) -> Ranges:
    """The rank-th of `count` parts of them, which are as long as one another to a row, and each as much in one piece as it can be."""
    total = length(ranges)
    first, last = rank * total // count, (rank + 1) * total // count
    found, before = [], 0
    for start, end in ranges:
        left, right = max(first, before), min(last, before + end - start)
        if left < right:
            found.append((start + left - before, start + right - before))
        before += end - start
    return found
