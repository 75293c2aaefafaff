"""The stage `table`: the authors' image table with coarse prompts and labels, and a manifest of how it was made."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import asdict

from ablations.building_cfp.folder import SAMPLER, STAGES, BuildFolder
from ablations.building_cfp.ledger import Shard, read_entries, shard_count
from ablations.building_cfp.prompts import Prompt
from ablations.results.provenance import library_versions
from ablations.runtime.errors import UserError
from ablations.runtime.files import whole_file, write_json
from datamodules.records import BadRecord

# The authors' columns, then ours.
IMAGE_COLUMNS = ("prompt", "step", "seed", "height", "width", "cfg", "sampler", "image_name", "image_path")
COLUMNS = (*IMAGE_COLUMNS, "coarse-grained prompt", "fine-grained prompt", "nsfw_label", "nsfw_score")
_LIBRARIES = ("python", "torch", "transformers", "diffusers", "numpy", "pillow")


def write_table(folder: BuildFolder) -> int:
    """Write cfp.csv and manifest.json; the number of rows. Raises UserError where a stage is not complete, naming the shard."""
    prompts, bad = folder.read_prompts()
    entries = {stage: read_entries(folder.stages, stage) for stage in STAGES}
    for stage in STAGES:
        _require_complete(folder, stage, prompts, entries[stage])
    settings = {stage: folder.settings(stage) or {} for stage in STAGES}
    rows = []
    for prompt in prompts:
        found = {stage: entries[stage][prompt.id] for stage in STAGES}
        problems = [BadRecord(prompt.id, 0, entry["bad"], entry["detail"]) for entry in found.values() if "bad" in entry]
        if problems:
            bad += problems[:1]
        else:
            rows.append(_row(prompt, found, settings["images"]))
    with whole_file(folder.table) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(folder.manifest, _manifest(folder, settings, len(prompts), rows, sorted(bad, key=lambda record: record.id)))
    return len(rows)


def _require_complete(folder: BuildFolder, stage: str, prompts: list[Prompt], entries: dict[int, dict]) -> None:
    def command(shard: Shard) -> str:
        part = f" --shard {shard}" if shard.count > 1 else ""
        return f"run python -m ablations.build_cfp {stage} --to {folder.path}{part}"

    missing = [prompt.id for prompt in prompts if prompt.id not in entries]
    if missing:
        count = shard_count(folder.stages, stage) or 1
        shard = Shard(missing[0] % count, count)
        of_shard = [number for number in missing if shard.owns(number)]
        total = sum(shard.owns(prompt.id) for prompt in prompts)
        others = len({number % count for number in missing}) - 1
        more = f" (and {others} more shards)" if others else ""
        raise UserError(
            f"stage {stage} is not complete: shard {shard} lacks {len(of_shard)} of {total} prompts, the first is {of_shard[0]}{more}; "
            f"{command(shard)}"
        )
    if stage == "images":
        gone = [number for number, entry in entries.items() if "image" in entry and not folder.has_image(entry)]
        if gone:
            raise UserError(
                f"{len(gone)} images are gone or torn, the first is {folder.image(min(gone))}: {command(Shard())}, which makes only those"
            )


def _row(prompt: Prompt, found: dict[str, dict], settings: dict) -> dict:
    image = found["images"]
    return {
        "prompt": prompt.text,
        "step": settings["steps"],
        "seed": image["seed"],
        "height": settings["height"],
        "width": settings["width"],
        "cfg": settings["guidance_scale"],
        "sampler": SAMPLER,
        "image_name": image["image"].rpartition("/")[2],
        "image_path": image["image"],
        "coarse-grained prompt": json.dumps([{"prompt": text} for text in found["coarse"]["coarse"]], ensure_ascii=False),
        "fine-grained prompt": prompt.text,
        "nsfw_label": found["nsfw"]["label"],
        "nsfw_score": found["nsfw"]["score"],
    }


def _manifest(folder: BuildFolder, settings: dict[str, dict], num_prompts: int, rows: list[dict], bad: list[BadRecord]) -> dict:
    versions = library_versions()
    return {
        "made_by": "python -m ablations.build_cfp",
        "prompts": {"sha256": folder.prompts_digest(), "usable": num_prompts},
        "stages": settings,
        "rows": len(rows),
        "left_out": len(bad),
        "reasons": dict(Counter(record.reason for record in bad).most_common()),
        "nsfw_labels": dict(Counter(row["nsfw_label"] for row in rows).most_common()),
        "versions": {name: versions[name] for name in _LIBRARIES},
        "bad": [asdict(record) for record in bad],
    }
