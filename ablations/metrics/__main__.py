"""`python -m ablations.metrics [fetch | check] [NAMES]`: what can be measured on images and prompts, and the weights that it takes.

Exit codes: 0; 1 weights could not be got, or named ones are not here; 2 a mistake in the arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablations.metrics.listing import show_metrics
from ablations.runtime.command_line import OneLineParser, run_command

_DESCRIPTION = """\
  (nothing)       lists every metric: what is better, its range, what it needs, licence, weights, and what to know before quoting it
  fetch [NAMES]   downloads the weights of the metrics named, or of all, checks them, and keeps them whole or not at all
  check [NAMES]   says which weights are here, and where it looked

NAMES are metrics as in eval.metrics, with blanks or commas between them; paper stands for the paper's six. A cell computes a few metrics
in any case; eval.metrics=niqe,nima-technical adds others. A metric whose weights are missing is an error before training starts or, with
eval.missing_metrics=skip, "not available" in every table.

Weights lie in one folder: eval.metrics_dir, here --dir; without it pyiqa's own cache, $TORCH_HOME/hub/pyiqa (~/.cache/torch/hub/pyiqa).
Nothing is downloaded but by fetch. On a machine without a network: download the files elsewhere and hand over their folder by --from.
"""
_EXAMPLES = """\
examples:
  python -m ablations.metrics
  python -m ablations.metrics fetch paper nima-technical nima-aesthetic
  python -m ablations.metrics fetch nima-aesthetic --from ~/Downloads --dir weights
  python -m ablations.metrics check && python -m ablations.run profile=paper data.source=cfp.csv eval.metrics=paper
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("metrics", _DESCRIPTION, _EXAMPLES)
    made.add_argument("command", nargs="?", choices=("list", "fetch", "check"), default="list", help="what to do (default: %(default)s)")
    made.add_argument("names", nargs="*", metavar="NAMES", help="metrics (default: all)")
    made.add_argument("--dir", type=Path, help="the folder of weights (default: pyiqa's cache)")
    made.add_argument("--from", dest="source", type=Path, metavar="DIR", help="fetch: copy the files from this folder, download nothing")
    made.add_argument("--json", action="store_true", help="list: as JSON")
    return made


def main(argv: list[str] | None = None) -> int:
    """List metrics, or fetch or check their weights; returns the exit code."""
    return run_command(parser(), show_metrics, argv)


if __name__ == "__main__":
    sys.exit(main())
