"""prompts.jsonl and scores.parquet: the one writer and the one reader of each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ablations.runtime.errors import UserError


def prompt_line(drawing: Drawing) -> dict:
    fields = asdict(drawing) | {"refined": drawing.text, "image": drawing.image}
    names = (
        "prompt_id",
        "condition",
        "candidate",
        "coarse",
        "refined",
        "prompt_seed",
        "image_seed",
        "num_new_tokens",
        "truncated",
        "image",
    )
    return {name: fields[name] for name in names}


def read_scores(arm: Path):
    """The scores of an arm's finished seeds as one table, with the columns `seed` and `coarse` (the coarse prompt's text).

    Raises UserError where the folder holds no finished seed.
    """
    import pandas as pd

    from ablations.results.run_folder import read_run

    parts, origins = [], set()
    for folder in sorted(arm.glob("seed-*")):
        run = read_run(folder)
        if run is None or run["status"] != "finished" or not (folder / "scores.parquet").exists():
            continue
        origins.add(json.dumps(run["digests"], sort_keys=True))
        texts = (
            pd.read_json(folder / "prompts.jsonl", lines=True, dtype=False).drop_duplicates("prompt_id").set_index("prompt_id")["coarse"]
        )
        scores = pd.read_parquet(folder / "scores.parquet")
        parts.append(scores.assign(seed=run["seed"], coarse=scores.prompt_id.map(texts)))
    if not parts:
        raise UserError(f"{arm} holds no finished seed with scores: run cells first, then give OUTPUT_DIR/ARM")
    if len(origins) > 1:
        raise UserError(f"the seeds in {arm} were made from different data or weights: run them again with force=true")
    return pd.concat(parts, ignore_index=True)


PLUG_IN = "plug_in"


@dataclass(frozen=True)
class Drawing:
    """A picture to draw: the text it is drawn from, and the keys of its chance. `image` is a path within the run folder.

    `by_trained_encoder` says which text encoder tells the UNet about the text: the trained E_T, or the original one.
    """

    prompt_id: int
    condition: str
    candidate: int
    coarse: str
    text: str
    prompt_seed: int
    image_seed: int
    num_new_tokens: int = 0
    truncated: bool = False
    by_trained_encoder: bool = False

    @property
    def image(self) -> str:
        return f"images/{self.prompt_id:04d}-{self.condition}-{self.candidate}.png"


def read_drawings(prompts_jsonl: Path) -> tuple[list[Drawing], np.ndarray]:
    """The drawings of a finished cell and their pictures, as `plan_drawings` and `draw` gave them."""
    with open(prompts_jsonl, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    pictures = []
    for line in lines:
        with Image.open(prompts_jsonl.parent / line.pop("image")) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    drawings = [Drawing(text=line.pop("refined"), by_trained_encoder=line["condition"] == PLUG_IN, **line) for line in lines]
    return drawings, np.stack(pictures)
