"""`python -m ablations.benchmark`: what training and drawing cost on this machine, side by side with the plain way of doing the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command, whole_number
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

_PARTS = ("training", "loop", "drawing", "matrix", "floors")
_SIZES = ("tiny", "middle", "full")
_DESCRIPTION = """\
Times, alternating in one run, on the fastest device that is here:

  training   a step, against the authors' loop, in which nothing is cached
  loop       Lightning's step, against the same step in a plain loop
  drawing    a picture, against a plain diffusers pipeline with the same networks
  matrix     the cells of a small sweep, against the same cells alone
  floors     operations and bytes of each stage over what a matrix product and a copy reach here

Networks: tiny (the embedded ones), middle (the paper's shape, half as wide, 256 px), full (the paper's size, on a GPU); nothing is
downloaded. Takes at most 5 minutes on 2 cores. Ratios of one run can be compared; seconds are this machine's, with whatever else it did.
"""
_EXAMPLES = """\
examples:
  python -m ablations.benchmark
  python -m ablations.benchmark training --sizes middle
  python -m ablations.benchmark --to benchmark.md       also writes the table, and benchmark.json with every repeat
"""


def main(argv: list[str] | None = None) -> int:
    """Time and show; returns the exit code."""
    parser = OneLineParser("benchmark", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to time: {', '.join(_PARTS)} (default: all)")
    parser.add_argument("--sizes", metavar="NAME,NAME", help=f"of {', '.join(_SIZES)} (default: what the device can time within minutes)")
    parser.add_argument("--repeats", type=whole_number(1), default=3, help="of each, alternating (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: the fastest here)")
    parser.add_argument("--to", type=Path, metavar="FILE.md", help="also write the table there, and FILE.json beside it")
    return run_command(parser, _benchmark, argv, then="begins anew")


def _benchmark(arguments: argparse.Namespace, stop: StopRequest) -> None:
    parts = arguments.parts or list(_PARTS)
    if unknown := [part for part in parts if part not in _PARTS]:
        raise UserError(f"{unknown[0]!r} is no part: {', '.join(_PARTS)}")
    sizes = arguments.sizes.split(",") if arguments.sizes else None
    if unknown := [size for size in sizes or () if size not in _SIZES]:
        raise UserError(f"--sizes: {unknown[0]!r} is none: {', '.join(_SIZES)}")
    from ablations.runtime.command_line import announce_libraries

    announce_libraries()
    import torch

    from ablations.benchmarking.running import default_sizes, run_benchmark
    from ablations.benchmarking.tables import markdown
    from ablations.cell.loading.device import best_device, kinds
    from ablations.runtime.files import write_atomically, write_json

    if arguments.device != "auto" and arguments.device not in kinds():
        raise UserError(f"--device {arguments.device}: torch sees none here")
    device = best_device() if arguments.device == "auto" else torch.device(arguments.device)
    found = run_benchmark(
        device,
        sizes or default_sizes(device),
        parts,
        arguments.repeats,
        lambda line: print(f"timing: {line}", flush=True),
        lambda: stop.check("timing"),
    )
    text = markdown(found)
    print(text)
    if arguments.to:
        write_atomically(arguments.to, text)
        write_json(arguments.to.with_suffix(".json"), found.as_json())


if __name__ == "__main__":
    sys.exit(main())
