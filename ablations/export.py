"""`python -m ablations.export RUN_DIR --to DIR`: what a run trained, for diffusers and for PromptRefiner. `--help` explains."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ablations.refiner import exported_refiner
from ablations.refiner.exporting import ExportError, export, without_bars
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    pass

_HELP = """\
Writes what a run trained to a new folder DIR:

  DIR/text_encoder, DIR/tokenizer   the trained text encoder as transformers' CLIPTextModel and CLIPTokenizer: what
                                    StableDiffusionPipeline(text_encoder=..., tokenizer=...) takes in place of its own
  DIR/prompt_refiner                adapter, AFE, the rest of the encoder, config and scores: PromptRefiner.from_pretrained(DIR)
  DIR/README.md                     a model card: arm, scores, settings, backbones, licence

RUN_DIR is OUTPUT_DIR/ARM/seed-SEED; its training must be finished. The export is checked against the run (equal token ids,
states that differ by rounding alone) before DIR appears, whole or not at all.

examples:
  python -m ablations.export outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d/seed-0 --to my-refiner
  python -m ablations.export RUN_DIR --to my-pipeline --with-image-model
  python -m ablations.export RUN_DIR --to ablations/refiner/embedded_refiner --compact --force    what ablations.refine uses by itself
"""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python -m ablations.export --help explains)")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments. Raises UserError for a mistake."""
    parser = _Arguments(
        prog="python -m ablations.export", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run whose training is exported")
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to write; it must not be there yet")
    parser.add_argument(
        "--with-image-model",
        action="store_true",
        help="also write UNet, VAE and scheduler, so that StableDiffusionPipeline.from_pretrained(DIR) needs nothing else "
        "(tiny: 34 MB; Stable Diffusion 2.1: about 3.8 GB)",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="for refining and drawing alone, at less than half the size: half precision, without AFE and the block that "
        "only the pooled feature reads",
    )
    parser.add_argument("--force", action="store_true", help="replace DIR if it holds an earlier export")
    return parser.parse_args(argv)


def check_target(directory: Path, force: bool) -> None:
    """Raises UserError unless the export may take the place of `directory`."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        if not (directory / exported_refiner.CONFIG).is_file():
            raise UserError(f"--to: {directory} is there already and holds no export: name another folder")
        if not force:
            raise UserError(f"--to: {directory} holds an earlier export: name another folder, or replace it with --force")


def main(argv: list[str] | None = None) -> int:
    """Export a run; returns the exit code: 0 done, 2 a mistake of the user's, 1 anything else."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        run = find_trained_run(arguments.run_dir)
        check_target(arguments.to, arguments.force)
        print("loading libraries (some seconds)", flush=True)
        from ablations.runtime.quiet_libraries import quiet_libraries

        quiet_libraries()
        without_bars()
        from ablations.runtime.console import Console

        export(run, arguments.to, arguments.with_image_model, Console().say, arguments.compact)
    except (UserError, RunFolderError, ExportError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
