"""An output folder like that of the deciding sweep: the paper's arms, twins, placebo and controls, with checks and world 2's endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from helpers.synthetic_runs import ALL_SEEDS, LENGTH_ARMS, LOSS_ARMS, write_cell

FURTHER = {"control_known_words": 0.43, "fine_prefix": 0.7, "fitting_styles": 0.6}
PLACEBO_ARM = {"loss.clip_weight": 0.1 * 1.0001}
AFE_ARMS = [{"use_afe": False}, {"afe.weights": "uniform"}, {"afe.weights": "frozen"}]
READINGS = ("layers", "experts", "patches")
_written: dict[str, Path] = {}


def decided_effect(settings: Mapping, metric: str) -> float:
    """L_mse acts (twice as much in plug_in), L_clip and AFE do not; without L_text nothing is written that fits; longer is better."""
    effect = 0.0
    if metric in ("fidelity", "style_fits", "qualities_fit", "style_fit_probability", "added_words_fit", "words_f1"):
        effect -= 0.08 * (settings.get("use_mse") is False) * (metric in ("style_fits", "qualities_fit", "fidelity"))
        effect -= 0.2 * (settings.get("use_text") is False)
    if metric in ("words_f1_of_ceiling", "words_f1", "fidelity"):
        effect += {2: -0.2, 4: -0.1, 8: 0.06, 12: 0.1, 20: 0.12}.get(settings.get("prompt_len"), 0.0)
    return effect


def further(settings: Mapping) -> dict[str, float]:
    """The levels of further conditions: the fine prompt's first tokens tell the more the more they are."""
    return FURTHER | {"fine_prefix": 0.5 + 0.02 * int(settings.get("prompt_len", 6))}


def checks_of(settings: Mapping, seed: int) -> dict[str, float]:
    """Checks that say: L_mse, L_clip and L_text were delivered; AFE is near its representation with mean weights."""
    found = {"clip_accuracy": 0.2 if settings.get("use_clip") is False else 0.8, "text_loss": 1.1, "pooled_retrieval_coarse": 0.4}
    found["text_loss"] = 3.0 if settings.get("use_text") is False else 1.1
    found["mse_gap_closed"] = 0.1 if settings.get("use_mse") is False else 0.8 + 0.01 * seed
    if settings.get("use_afe") is not False and settings.get("use_clip") is not False:
        mean = {"uniform": 1.0, "frozen": 0.95}.get(str(settings.get("afe.weights")), 0.96 + 0.01 * (seed % 3))
        found |= {"afe_cosine_to_pooled": 0.62, "afe_entropy_share": 0.55, "afe_cosine_to_mean_weights": mean}
        found |= {"afe_retrieval_coarse": 0.39, "afe_retrieval_fine": 0.5}
    return found


def decided(folder: Callable[[str], Path]) -> Path:
    """The folder, written once a process; `folder(name)` makes an empty one."""
    if "decided" not in _written:
        outputs = _written["decided"] = folder("decided")
        for settings in [*LOSS_ARMS, *LENGTH_ARMS, *AFE_ARMS, PLACEBO_ARM]:
            for seed in ALL_SEEDS:
                options = {"checks": checks_of(settings, seed), "further": further(settings), "pictures": seed == 0}
                write_cell(outputs, settings, seed, decided_effect, num_prompts=8, **options)
    return _written["decided"]


def tried_readings(outputs: Path) -> Path:
    """AFE in three readings at two weights of L_clip, its twin, without AFE and without L_clip: 3 seeds each; AFE helps in one alone."""

    def effect(settings: Mapping, metric: str) -> float:
        helps = settings.get("afe.reading") == "experts" and "afe.weights" not in settings
        return 0.15 * (helps and metric in ("st_lpips", "fitting_styles_drawn"))

    arms = [{"afe.reading": reading, "loss.clip_weight": weight} for reading in READINGS for weight in (0.1, 0.3)]
    arms += [{**arm, "afe.weights": "uniform"} for arm in arms]
    arms += [{"use_afe": False, "loss.clip_weight": weight} for weight in (0.1, 0.3)] + [{"use_clip": False, "use_afe": False}]
    for settings in arms:
        for seed in range(3):
            options = {"checks": checks_of(settings, 1), "further": further(settings), "pictures": False}
            write_cell(outputs, settings, seed, effect, num_prompts=6, **options)
    return outputs
