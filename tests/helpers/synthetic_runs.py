"""Output folders without any training: the real writers, configs and file formats, with scores whose true effects are known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ablations.config import parse, show
from ablations.results.run_folder import RunFolder
from ablations.runtime.files import whole_file, write_atomically

COLUMNS = ["prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image"]
IMAGE_CONDITIONS = {
    "coarse": 0.45,
    "plug_in": 0.60,
    "fine": 0.78,
    "refined": 0.55,
    "refined_shared_noise": 0.55,
    "rewrite": 0.57,
    "control_step0": 0.44,
    "control_t5_direct": 0.43,
    "control_shuffled": 0.42,
}
# What suits, as claims are judged by: values of single pictures or texts, and of sets of candidates.
FITTING = ("style_fits", "qualities_fit", "added_words_fit", "words_f1", "words_f1_of_ceiling")
FITTING_OF_SETS = ("style_fit_probability", "fitting_styles_drawn", "distinct_fitting_styles")
SET_CONDITIONS = ("coarse", "refined", "refined_shared_noise", "rewrite")
COARSE = (
    "a cat in the snow at night",
    "an owl on a beach",
    "a little tree in a city",
    "a robot in the desert at noon",
    "a castle at sunset",
)
ADDED = (", oil painting, 8k", ", watercolor, sharp focus", ", comic book, vivid colors")
# The true shift of the refined prompts' metric in an arm with these settings, before noise.
Effect = Callable[[Mapping, str], float]


def no_effect(settings: Mapping, metric: str) -> float:
    return 0.0


def write_cell(
    output_dir: Path,
    settings: Mapping,
    seed: int,
    effect: Effect = no_effect,
    *,
    num_prompts: int = 8,
    num_candidates: int = 3,
    digests: Mapping[str, str] | None = None,
    coarse: Iterable[str] | None = None,
    pictures: bool = True,
    styles: int = 6,
    seed_spread: float = 0.005,
    rest_spread: float = 0.02,
    finish: bool = True,
    checks: Mapping[str, float] | None = None,
    candidates_of: Mapping[str, int] | None = None,
    further: Mapping[str, float] | None = None,
) -> RunFolder:
    """A cell as `ablations.run` leaves it behind. `styles`: how many styles the oracle sees in the refined pictures.

    In `plug_in` the effect is twice what it is in refined prompts. `checks` are manipulation checks, `candidates_of` how many candidates
    a condition has where not all were drawn. `further` conditions are drawn too, at these levels; `fitting_styles` is the most diverse.
    """
    keys = {"eval.num_prompts": num_prompts, "eval.num_candidates": num_candidates, **settings, "seed": seed, "output_dir": output_dir}
    folder = RunFolder(parse([f"{name}={show(value)}" for name, value in keys.items()]))
    name = zlib.crc32(repr(sorted((key, str(value)) for key, value in settings.items())).encode())  # no key that is added changes it
    rng = np.random.default_rng([seed, name, 5])
    texts = list(coarse or [f"{COARSE[i % len(COARSE)]}, view {i}" for i in range(num_prompts)])
    own = lambda metric: effect(settings, metric) + rng.normal(0, seed_spread)  # noqa: E731
    shift = {metric: own(metric) for metric in ("fidelity", "words_drawn", "st_lpips", "clip_distance", *FITTING, *FITTING_OF_SETS)}
    rows, lines = [], []
    for prompt_id, text in enumerate(texts):
        hard = np.random.default_rng([prompt_id, 9]).normal(0, 0.06)
        for condition, level in (IMAGE_CONDITIONS | dict(further or {})).items():
            refined = condition in ("refined", "refined_shared_noise", "rewrite")
            acts = 2 if condition == "plug_in" else refined
            for candidate in range((candidates_of or {}).get(condition, num_candidates)):
                image = f"images/{prompt_id:04d}-{condition}-{candidate}.png"
                written = text + (ADDED[(candidate + seed) % 3] if refined else "")
                lines.append({"prompt_id": prompt_id, "condition": condition, "candidate": candidate, "coarse": text, "refined": written})
                lines[-1] |= {"prompt_seed": 1, "image_seed": 2, "num_new_tokens": 6 * refined, "truncated": False, "image": image}
                values = {
                    "fidelity": level + hard + acts * shift["fidelity"] + rng.normal(0, rest_spread),
                    "words_drawn": level + acts * shift["words_drawn"] + rng.normal(0, rest_spread),
                    "style_drawn": float(rng.random() < 0.6),
                    "subject_kept": float(rng.random() < 0.95),
                    "clip_score": 85 + rng.normal(),
                    "clip_score_coarse": 60 + rng.normal(),
                    "piqe": 50 + rng.normal(),
                    "style_seen": float(rng.integers(styles)) if refined else 6.0,
                }
                values |= {metric: level + acts * shift[metric] + rng.normal(0, rest_spread) for metric in FITTING}
                rows += [(prompt_id, condition, candidate, metric, value, 2, image) for metric, value in values.items()]
        for condition in (*SET_CONDITIONS, *(name for name in further or () if name == "fitting_styles")):
            lpips = 0.25 + shift["st_lpips"] + rng.normal(0, rest_spread)
            distance = 0.4 + shift["clip_distance"] + rng.normal(0, rest_spread)
            of_set = {"st_lpips": lpips, "clip_distance": distance, "vendi": 1 + 2 * distance, "distinct_2": 0.4}
            for metric in FITTING_OF_SETS:
                of_set[metric] = 0.6 + shift[metric] + rng.normal(0, rest_spread) - 0.3 * (condition == "coarse")
            forced = 0.3 * (condition == "fitting_styles")
            rows += [(prompt_id, condition, -1, metric, value + forced, -1, "") for metric, value in of_set.items()]
    with folder.lock():
        folder.start({"data": "d" * 64, "weights": "e" * 16, **(digests or {})}, threads=1)
        write_atomically(folder.prompts, "".join(json.dumps(line) + "\n" for line in lines))
        with whole_file(folder.scores) as aside:
            pd.DataFrame(rows, columns=COLUMNS).to_parquet(aside, index=False)
        if pictures:
            for line in lines:
                if line["condition"] in ("coarse", "refined"):
                    hue = np.random.default_rng([line["prompt_id"], line["candidate"], name]).integers(40, 216, 3)
                    with whole_file(folder.path / line["image"], sync=False) as aside:
                        Image.fromarray(np.full((64, 64, 3), hue, dtype=np.uint8)).save(aside, format="PNG")
        if finish:
            kept = {"checks": dict(checks)} if checks else {}
            folder.finish({"n": {"prompts": num_prompts, "candidates": num_candidates}}, {"training": 60.0, "drawing": 20.5}, **kept)
    return folder


def forget_digests(output_dir: Path) -> None:
    """Have every cell as one that compares nothing: from before there were digests, or by somebody who wants changes to be read."""
    for path in output_dir.glob("*/seed-*/run.json"):
        run = json.loads(path.read_bytes())
        path.write_text(json.dumps({name: value for name, value in run.items() if name not in ("files", "sha256")}))


def write_arms(output_dir: Path, arms: Iterable[Mapping], seeds: Iterable[int], effect: Effect = no_effect, **options) -> None:
    """Cells of several arms at several seeds."""
    for settings in arms:
        for seed in seeds:
            write_cell(output_dir, settings, seed, effect, **options)


LOSS_ARMS = [
    {},
    {"use_mse": False},
    {"use_clip": False, "use_afe": False},
    {"use_mse": False, "use_clip": False, "use_afe": False},
    {"use_text": False},
    {"use_feature": True},
]
LENGTH_ARMS = [{"prompt_len": length} for length in (2, 4, 8, 12, 20)]


def known_effect(settings: Mapping, metric: str) -> float:
    """L_mse and AFE help, L_clip does not matter, the feature term harms; length 6 is best, 8 nearly as good."""
    effect = 0.0
    if metric in ("fidelity", "words_drawn", "style_fit_probability", *FITTING):
        effect -= 0.08 * (settings.get("use_mse") is False)
        effect -= 0.05 * (settings.get("use_text") is False)
        effect -= 0.06 * bool(settings.get("use_feature"))
        effect -= {2: 0.08, 4: 0.05, 8: 0.002, 12: 0.05, 20: 0.09}.get(settings.get("prompt_len"), 0.0)
    elif settings.get("use_afe") is False and settings.get("use_clip") is not False:
        effect -= 0.1
    return effect


FAILURE = 'FloatingPointError: <script>alert("1")</script> at step 12 | 50% & a_b {x}'
ALL_SEEDS = (0, 1, 2, 3, 4)
_written: dict[str, Path] = {}


def every_arm(folder: Callable[[str], Path]) -> Path:
    """Every arm of the paper at 5 seeds with `known_effect`, and a failed, a running, a random and a torn cell; written once a process.

    `folder(name)` makes an empty folder.
    """
    if "outputs" not in _written:
        outputs = _written["outputs"] = folder("outputs")
        write_arms(outputs, LOSS_ARMS + LENGTH_ARMS, ALL_SEEDS, known_effect, num_prompts=6)
        write_arms(outputs, [{"use_afe": False}], ALL_SEEDS, known_effect, num_prompts=6, styles=2)
        write_cell(outputs, {"prompt_len": 10}, 0, num_prompts=6, finish=False, pictures=False).fail(FAILURE)
        write_cell(outputs, {"prompt_len": 16}, 0, num_prompts=6, finish=False, pictures=False)
        write_cell(outputs, {"backbones.init": "random"}, 0, num_prompts=6, pictures=False)
        (outputs / "tiny-torn" / "seed-0").mkdir(parents=True)
    return _written["outputs"]
