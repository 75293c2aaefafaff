"""`python -m ablations.run key=value ...`: run one cell. `--help` lists every key.

Arguments are checked before anything heavy is imported, so that a mistake shows at once. Exit codes: 0 finished, 2 a
mistake of the user's, 143 stopped by a signal (it goes on next time), 1 anything else.
"""

from __future__ import annotations

import logging
import sys

from ablations.cell.training.place import ProcessLost, find_place
from ablations.config import help_text, parse
from ablations.runtime.errors import RunFolderError, UserError, one_line


def main(argv: list[str] | None = None) -> int:
    """Run the cell that the arguments describe; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if any(argument in ("--help", "-h", "help") for argument in argv):
        print(help_text())
        return 0
    try:
        config = parse(argv)
        place = find_place(config)
    except UserError as error:
        return _complain(error, UserError.exit_code)
    from ablations.runtime.stopping import Preempted, StopRequest

    stop = StopRequest().install()
    try:
        if config.trainer.progress != "none" and place.rank == 0:
            print("loading libraries (some seconds)", flush=True)
        from ablations.runtime.quiet_libraries import quiet_libraries

        quiet_libraries()
        from ablations.cell.training.companion import follow
        from ablations.cell.training.gathering import dismissing

        if place.rank > 0:
            follow(config, place, stop)
            return 0
        from ablations.cell.cell import run_cell

        with dismissing(place):
            run_cell(config, stop)
    except UserError as error:
        return _complain(error, UserError.exit_code)
    except (RunFolderError, FloatingPointError, ProcessLost) as error:
        return _complain(error, 1)
    except Preempted as preempted:
        if place.rank == 0:
            print(f"stopped by a signal ({preempted}); the same command goes on from there", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()
    return 0


def _complain(error: BaseException, code: int) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
