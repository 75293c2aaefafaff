"""`python -m ablations.export RUN_DIR --to DIR`: what a run trained, for diffusers and for PromptRefiner."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.refiner.exporting import export_run
from ablations.refiner.seen_again import add_to_export
from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Writes what a run trained to a new folder DIR:

  DIR/text_encoder, DIR/tokenizer   the trained text encoder as transformers' CLIPTextModel and CLIPTokenizer: what
                                    StableDiffusionPipeline(text_encoder=..., tokenizer=...) takes in place of its own
  DIR/prompt_refiner                adapter, AFE, the rest of the encoder, config, scores, and the words that training read:
                                    PromptRefiner.from_pretrained(DIR)
  DIR/README.md                     a model card: arm, scores, settings, backbones, licence

With --with-image-model DIR also holds all that
  DiffusionPipeline.from_pretrained(DIR, custom_pipeline=DIR, trust_remote_code=True)
needs to refine and draw: pipe("a green tree", num_candidates=3).prompts and .images.

RUN_DIR is OUTPUT_DIR/ARM/seed-SEED; its training must be finished. The export is checked against the run (equal token ids,
states that differ by rounding alone) before DIR appears, whole or not at all.

examples:
  python -m ablations.export outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d/seed-0 --to my-refiner
  python -m ablations.export RUN_DIR --to my-pipeline --with-image-model
  python -m ablations.export EARLIER_EXPORT --add-words
  python -m ablations.export RUN_DIR --to ablations/refiner/embedded_refiner --compact --force    what ablations.refine uses by itself
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("export", _DESCRIPTION)
    made.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run whose training is exported")
    made.add_argument("--to", metavar="DIR", type=Path, help="the folder to write; it must not be there yet")
    made.add_argument(
        "--with-image-model",
        action="store_true",
        help="also write UNet, VAE, scheduler, T5 and a pipeline that refines and draws, so that diffusers needs nothing else than DIR "
        "(tiny: 41 MB; Stable Diffusion 2.1 and T5-base: about 6.1 GB)",
    )
    made.add_argument(
        "--compact",
        action="store_true",
        help="for refining and drawing alone, at less than half the size: half precision, without AFE and the block that "
        "only the pooled feature reads",
    )
    made.add_argument(
        "--add-words",
        action="store_true",
        help="RUN_DIR is an earlier export, without prompt_refiner/seen_words.json: write that file, from the data that it was trained on",
    )
    made.add_argument("--force", action="store_true", help="replace DIR if it holds an earlier export")
    return made


def main(argv: list[str] | None = None) -> int:
    """Export a run; returns the exit code: 0 done, 2 a mistake of the user's, 1 anything else."""
    return run_command(parser(), _export, argv, then="begins anew")


def _export(arguments: argparse.Namespace, stop: StopRequest) -> None:
    if arguments.add_words:
        if arguments.to is not None:
            raise UserError(f"--to {arguments.to} has no effect with --add-words: leave one of them out")
        add_to_export(arguments.run_dir)
        return
    if arguments.to is None:
        raise UserError("--to DIR is missing: name the folder to write")
    export_run(arguments.run_dir, arguments.to, arguments.with_image_model, arguments.compact, arguments.force)


if __name__ == "__main__":
    sys.exit(main())
