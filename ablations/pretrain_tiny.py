"""`python -m ablations.pretrain_tiny`: train the tiny backbones from nothing and write them where the suite loads them.

Stages: vocabularies, vae, open_clip, t5, oracle, unet, evaluate. Each is seeded, goes on where it was stopped (its state is in
the work folder), and records its steps, loss, seconds and held-out quality in provenance.json beside the weights. A GPU is
used where there is one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablations.pretraining.stages import Pretraining
from ablations.runtime.errors import one_line

STAGES = ("vocabularies", "vae", "open_clip", "t5", "oracle", "unet", "evaluate")
DEFAULT_STEPS = {"vae_narrow": 2100, "vae": 3200, "open_clip": 900, "t5": 11_500, "oracle": 1000, "unet": 2400}
NUM_PICTURES = 80_000


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; a mistake ends the process with exit code 2, the usage and one line."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.pretrain_tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"which stages, in this order (default: all): {', '.join(STAGES)}")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretraining"), help="folder for data and training state (about 4 GB)")
    parser.add_argument(
        "--to", type=Path, default=None, help="folder for weights and provenance.json (default: where the suite loads them)"
    )
    parser.add_argument("--steps", action="append", default=[], metavar="STAGE=N", help=f"other lengths; defaults {DEFAULT_STEPS}")
    parser.add_argument("--pictures", type=int, default=NUM_PICTURES, help="size of the corpus (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: torch's choice)")
    arguments = parser.parse_args(argv)
    for stage in arguments.stages:
        if stage not in STAGES:
            parser.error(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    steps = dict(DEFAULT_STEPS)
    for item in arguments.steps:
        name, _, number = item.partition("=")
        if name not in steps or not number.isdigit() or int(number) < 1:
            parser.error(f"--steps {item}: write STAGE=N with a stage of {', '.join(steps)} and N >= 1")
        steps[name] = int(number)
    arguments.steps = steps
    arguments.stages = [stage for stage in STAGES if not arguments.stages or stage in arguments.stages]
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the stages asked for."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    from ablations.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    import torch

    try:
        pretraining = Pretraining(arguments)
        for stage in arguments.stages:
            if stage != "vocabularies":
                print(f"stage {stage}", flush=True)
                torch.manual_seed(arguments.seed)
                getattr(pretraining, stage)()
    except (FileNotFoundError, FloatingPointError, ValueError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
