"""The third stage: was each treatment delivered? Figures on held-out records, for every arm, kept with the training.

They are of the training alone, so that arms which share one share them: OUTPUT_DIR/trainings/TRAIN_ID/seed-SEED/checks.json, with what
they were made from. What each figure is: see `figures` and `noise_gap`; text_loss is L_text, in nats a token.
"""

from __future__ import annotations

from pathlib import Path

import lightning_modules
from ablations.cell.checking.figures import afe_figures, text_image_figures
from ablations.cell.checking.held_out import read_held_out
from ablations.cell.checking.noise_gap import NUM_PICTURES, mse_gap_closed
from ablations.cell.loading.load import Loaded
from ablations.cell.work import Work
from ablations.config.names import is_rehearsal
from ablations.results.checkpoints import asked_for
from ablations.results.made_by import digest_of_code
from ablations.runtime.files import read_sealed, write_sealed
from datamodules.files import file_digest

CHECKS = "checks.json"
_CODE = (Path(__file__).parent, Path(lightning_modules.__file__).parent)


def check(work: Work, loaded: Loaded) -> dict[str, float]:
    """The manipulation checks of a finished training, flat: {name: figure}; a figure that does not apply is missing.

    What was found before, on the same records and by the same code, is taken. run.json and W&B get them; a line says the main ones. Empty
    for a rehearsal and where train.check_records is 0.
    """
    config, folder = work.config, work.folder
    if is_rehearsal(config) or not config.train.check_records:
        return {}
    with work.timings.stage("checks"), folder.training_lock(say=work.console.say):
        made_from = {
            "checkpoint": file_digest(asked_for(folder.checkpoints, config.eval.checkpoint)),
            "weights": loaded.backbones.digest,
            "data": loaded.data.digest,
            "records": config.train.check_records,
            "code": digest_of_code(*_CODE),
        }
        path = folder.training_path / CHECKS
        checks = _kept(path, made_from)
        if checks is None:
            checks = measure(loaded, config.train.check_records)
            write_sealed(path, {"made_from": made_from, "checks": checks})
    folder.record(checks=checks)
    work.tracker.summary({"checks": checks})
    work.console.say(f"checks: {in_words(checks)}")
    return checks


def measure(loaded: Loaded, num_records: int) -> dict[str, float]:
    """The figures of the loaded, trained refiner on the first `num_records` held-out records; of texts alone where pictures are lacking."""
    module = loaded.module.to(loaded.backbones.text_to_image.device).eval()
    held_out = read_held_out(loaded, num_records)
    figures = {"text_loss": held_out.text_loss, "records": float(len(held_out.coarse_NE))}
    if held_out.pictures is None:
        return figures
    figures |= {} if module.afe is None else afe_figures(module.afe, held_out)
    figures |= text_image_figures(module.afe, held_out)
    gap = mse_gap_closed(module.text_encoder, loaded.backbones, loaded.data, min(num_records, NUM_PICTURES))
    return figures | ({} if gap is None else {"mse_gap_closed": gap})


def in_words(checks: dict[str, float]) -> str:
    """The main figures in a line."""
    words = {
        "mse_gap_closed": "L_mse's gap closed",
        "text_loss": "L_text",
        "clip_accuracy": "own picture found among 64",
        "afe_cosine_to_pooled": "AFE to pooled",
        "afe_entropy_share": "entropy",
        "afe_cosine_to_mean_weights": "to mean weights",
    }
    return ", ".join(f"{word} {checks[name]:.2f}" for name, word in words.items() if name in checks)


def _kept(path: Path, made_from: dict) -> dict[str, float] | None:
    try:
        content = read_sealed(path)
        return dict(content["checks"]) if content["made_from"] == made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
