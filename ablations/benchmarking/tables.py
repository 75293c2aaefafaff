"""What the benchmark found, as Markdown: the same on the screen and in a file."""

from __future__ import annotations

from ablations.benchmarking.running import Found
from ablations.benchmarking.timing import ratio

# An A100 at 512 px, training the UNet on latents that were computed beforehand (github.com/mosaicml/diffusion): images a second.
_PUBLISHED_A100 = 36.3


def markdown(found: Found) -> str:
    """Tables with a line above each; what was not timed is left out."""
    machine = found.machine
    versions = machine["versions"]
    lines = [
        f"{machine.get('gpu', machine['processor'])}, {machine['cores']} cores, {machine['threads']} threads; "
        + ", ".join(f"{name} {versions[name]}" for name in ("torch", "pytorch-lightning", "diffusers", "transformers") if name in versions),
        "",
        f"A matrix product of {found.reach.dtype} reaches {found.reach.flops / 1e12:.3g} TFLOP/s here, "
        f"a copy {found.reach.bytes / 1e9:.3g} GB/s. All of it took {found.seconds:.0f} s.",
    ]
    lines += _training(found) + _loop(found) + _drawing(found) + _matrix(found) + _floors(found)
    return "\n".join(lines) + "\n"


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    return ["", title, "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _training(found: Found) -> list[str]:
    rows = []
    for size, works in found.training.items():
        ours, authors, records = works["ours"], works["authors"], found.records[size]
        note = f" (published for an A100, UNet trained: {_PUBLISHED_A100})" if size == "full" else ""
        rows.append(
            (
                size,
                f"{ours.median:.3f} s",
                f"{authors.median:.3f} s",
                f"**{ratio(authors, ours):.2f}x**",
                f"{records / ours.median:.2f}{note}",
            )
        )
    return _table(
        "A training step (L_mse + L_text), and the authors' loop, where nothing is cached and T5 reads 256 padded tokens:",
        ("size", "ours", "the authors' loop", "as many times as fast", "records a second"),
        rows,
    )


def _loop(found: Found) -> list[str]:
    if not found.loop:
        return []
    lightning, loop = found.loop["lightning"], found.loop["loop"]
    row = (f"{lightning.median:.2f} s", f"{loop.median:.2f} s", f"**{ratio(lightning, loop):.3f}x**")
    return _table("The same steps by Lightning and by a plain loop (tiny, 19 steps):", ("Lightning", "loop", "Lightning takes"), [row])


def _drawing(found: Found) -> list[str]:
    rows = []
    for size, works in found.drawing.items():
        count = found.pictures[size]
        ours, plain = works["ours"], works["pipeline"]
        rows.append((size, f"{ours.median / count:.3f} s", f"{plain.median / count:.3f} s", f"**{ratio(plain, ours):.2f}x**"))
    return _table(
        "A picture, and a plain diffusers pipeline with the same networks and sampler:",
        ("size", "ours", "pipeline", "as many times as fast"),
        rows,
    )


def _matrix(found: Found) -> list[str]:
    if found.matrix is None:
        return []
    row = (f"{found.matrix.together:.0f} s", f"{sum(found.matrix.alone):.0f} s", f"**{found.matrix.share:.0%}**")
    return _table(f"A small sweep, and its {len(found.matrix.alone)} cells alone:", ("sweep", "cells alone", "the sweep takes"), [row])


def _floors(found: Found) -> list[str]:
    rows = [
        (
            size,
            floor.stage,
            f"{floor.flops / 1e9:.3g} GFLOP",
            f"{floor.moved / 1e6:.3g} MB",
            f"{floor.seconds:.3f} s",
            f"{floor.floor:.3f} s",
            f"{floor.reached:.0%}",
        )
        for size, floors in found.floors.items()
        for floor in floors
    ]
    return _table(
        "How far from a matrix product and a copy (bytes: weights and optimiser alone):",
        ("size", "stage", "operations", "bytes at least", "took", "floor", "reached"),
        rows,
    )
