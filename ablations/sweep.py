"""`python -m ablations.sweep FILE [key=value ...]`: run every cell of a W&B sweep file here, without an account.

Exit codes: 0 every cell finished, 1 a cell failed, 2 a mistake in the file or the arguments, 143 stopped by a signal.
"""

from __future__ import annotations

import logging
import sys

from ablations.cell.training.place import refuse_launcher
from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.sweeping.arguments import read_arguments

HELP = """\
usage: python -m ablations.sweep FILE [key=value ...] [--jobs N] [--count N] [--search-seed N] [--verbose]

Runs every cell of a W&B sweep file on this machine, without an account. The file is W&B's own format: `wandb sweep FILE` and
`wandb agent` run the same cells on many machines.

examples:
  python -m ablations.sweep sweeps/losses.yaml                       4 cells, one after the other
  python -m ablations.sweep sweeps/losses.yaml seed=0,1,2            with 3 seeds: 12 cells
  python -m ablations.sweep sweeps/ablation_tables.yaml --jobs 2     all arms of the paper, two cells at a time
  python -m ablations.sweep sweeps/prompt_length.yaml output_dir=/data/outputs train.max_steps=800
  python -m ablations.sweep sweeps/loss_weights.yaml --count 30      a search, of 30 cells
  python -m ablations.plan sweeps/losses.yaml                        what it would run, and how long that takes

  key=value      sets a key in every cell; key=1,2,3 sweeps over it, in place of what the file says (python -m ablations.run --help
                 lists the keys)
  --jobs N       processes, which share the processors' threads; each loads libraries and networks once (default 1)
  --count N      cells of a random or bayes search, in place of run_cap in the file
  --search-seed  what the draws of a random or bayes search follow from (default 0)
  --verbose      shows what each cell says, too

Start it again after a kill, a crash or a failure: it runs only what is missing. Start it in the same output_dir on several machines,
or once for each GPU with CUDA_VISIBLE_DEVICES: they never run a cell twice and finish it together (the file system must have file
locks). Cells that differ in eval keys alone share a training, and no picture is drawn or scored twice. A cell that failed is named with
its reason and does not stop the others.

Exit codes: 0 every cell finished, 1 a cell failed, 2 a mistake in the file or the arguments, 143 stopped by a signal.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the sweep that the arguments describe; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not argv or any(word in ("--help", "-h", "help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    from ablations.runtime.stopping import Preempted, StopRequest
    from ablations.sweeping.cells import cells_of
    from ablations.sweeping.sweep_file import read_sweep_file

    stop = StopRequest().install()
    try:
        refuse_launcher()
        arguments = read_arguments(argv, ("jobs", "count", "search-seed"), ("verbose",), "ablations.sweep")
        sweep = read_sweep_file(arguments.file, arguments.keys)
        cells = cells_of(sweep, arguments.options.get("count"), arguments.options.get("search-seed", 0))
        return _run(sweep, cells, arguments.options, stop)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except Preempted as preempted:
        print("stopped by a signal; the same command runs what is missing", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()


def _run(sweep, cells, options, stop) -> int:
    from ablations.runtime.console import Console
    from ablations.sweeping.dispatcher import Dispatcher
    from ablations.sweeping.progress import SweepProgress, summary_lines
    from ablations.sweeping.workers import run_here, run_in_processes

    jobs = int(options.get("jobs", 1))
    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    for name in sweep.without_effect:
        console.say(f"{sweep.path}: {name} is for W&B's server and has no effect here")
    if cells.num_repeated:
        console.say(f"{cells.num_repeated} combinations are the same cell as another one and run once")
    dispatcher = Dispatcher(cells)
    progress = SweepProgress(console, sweep, cells, cells.folder, jobs, verbose=bool(options.get("verbose")))
    progress.open(dispatcher)
    try:
        if jobs > 1:
            run_in_processes(dispatcher, progress, jobs)
        else:
            run_here(dispatcher, progress, stop)
    finally:
        progress.close()
    for line in summary_lines(sweep, cells, dispatcher):
        console.say(line)
    return 1 if dispatcher.count("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
