"""Cells of any arm on tables of one's own, with pictures or without: they end as a result that the report reads, or in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ablations.reporting.collect import collect
from ablations.results.prompts_and_scores import read_prompts
from faults.bench import Kind, Tried, each
from faults.small_cell import small_cell

# Settings, each taken by chance; "" stands for the default.
OF_TEXTS = ("use_mse=false use_clip=false", "use_mse=false use_clip=false use_feature=true")
TERMS = ("", "use_mse=false", "use_clip=false", "use_text=false", *OF_TEXTS)
CHOICES = (
    ("", "", "use_afe=false", "afe.weights=uniform", "afe.reading=layers", "afe.reading=text_query", "afe.reading=experts"),
    ("", "data.cache=false", "data.encode_batch_size=3", "data.random_flip=true", "data.clean_captions=true"),
    ("", "eval.controls=true", "eval.draw=all", "eval.num_candidates=1", "eval.mode=rewrite", "eval.rewrite_too=false"),
    ("", "eval.text_prompts=0", "eval.num_prompts=3", "eval.coarse_length=short", "eval.plug_in=false", "eval.num_prompts=0"),
    ("", "train.check_records=0", "train.check_records=64", "train.validate_every=0", "train.accumulate=2", "train.keep_best=1"),
    ("", "loss.hard_negatives=true", "loss.clip_bank=0", "loss.clip_bank=30", "train.target_len=3", "train.max_epochs=1"),
)
SUBJECTS = ("a boat", "a red house on a hill", "Ein Schloß im Schnee", "猫", "a (cat:1.2) BREAK dog", "owl", "a\tcastle", "🦉 at night")


def write_table(folder: Path, rng: np.random.Generator, has_pictures: bool) -> Path:
    """A plain or an image table of 14 to 40 rows, whose pictures are there, or all elsewhere."""
    folder.mkdir(parents=True)
    of_images = rng.random() < 0.4
    per_prompt = int(rng.choice([1, 1, 3]))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "image_path"] if of_images else ["coarse", "fine", "image"])
        for number in range(int(rng.integers(14, 41))):
            subject = f"{rng.choice(SUBJECTS)} {number // per_prompt}"
            fine = f"{subject}, {', '.join(rng.permutation(['oil painting', 'sharp focus', '8k', 'at night'])[: rng.integers(1, 5)])}"
            rows.writerow([fine, f"{number}.png"] if of_images else [subject, fine, f"{number}.png"])
            if has_pictures:
                size = tuple(rng.integers(8, 90, 2).tolist())
                Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist())).save(folder / f"{number}.png")
    return folder / "table.csv"


def try_cells(seed: int, count: int, folder: Path) -> Tried:
    def attempt(rng: np.random.Generator, number: int) -> str | None:
        place = folder / str(number)
        has_pictures, own = rng.random() < 0.6, rng.random() < 0.8
        choices = (OF_TEXTS if own and not has_pictures else TERMS, *CHOICES)
        words = [word for some in choices for word in str(rng.choice(some)).split()]
        if own:
            words.append(f"data.source={write_table(place / 'table', rng, has_pictures)}")
        ended = small_cell("backbones.init=pretrained").run(place / "out", *words)
        if (problem := ended.problem((0, 2))) is not None or ended.code:
            return problem and f"{problem}, with {words}"
        if "eval.num_prompts=0" in words:
            return None
        cells = [cell for section in collect(place / "out").sections for cell in section.cells]
        if len(cells) != 1 or cells[0].scores.empty:
            return f"{len(cells)} cells in the report, with {words}"
        lines = read_prompts(cells[0].folder / "prompts.jsonl")
        return None if any(line["image"] for line in lines) else f"nothing is drawn, with {words}"

    return each("cells", seed, count, attempt)


KIND = Kind("cells", try_cells, short=5, about="any arm on tables of one's own, with their pictures or without")
