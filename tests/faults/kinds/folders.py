"""Run folders of somebody else, hostile or damaged: the report and the page show the rest, and nothing leads out of a folder."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ablations.reporting.assembly import assemble
from ablations.reporting.writing import write
from ablations.runtime.errors import OneLineError, UserError
from ablations.web.run_browser import RunBrowser
from faults.bench import Kind, Tried, each
from helpers.synthetic_runs import forget_digests, write_cell

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (
    *(None, True, False, -1, 0, 3, 2.5, 1e300, 10**30, "", "x", "../../out", "/etc/passwd", "a\0b", "\ud800", "a\nb|c", SCRIPT),
    *('=HYPERLINK("http://x")', "+1", "-x", "@x", "\\input{/etc/passwd}", "${x}", "{{7*7}}", "x" * 5000, [], {}, [1], {"a": 1}, [[[]]]),
    *("finished", "running", "tiny", "paper", "e" * 16, "../" * 10 + "x", "seed-1", "\N{RIGHT-TO-LEFT OVERRIDE}x", 1 << 40),
)
NAMES = ("=1+1", SCRIPT, "a b", "a\nb", "-x", ".hidden", "a|b`c*", "\\x{y}", "é" * 80, "tiny-\udcff", "@x", "trainings ")
SEEDS = ("seed-x", "seed-", "seed-007", "seed--1", "seed-99999999999999", "seed-1 (copy)", "seed-1.5", "seed-3")
SECRET = (255, 0, 255)
Damage = Callable[[np.random.Generator, Path], None]


def any_of(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def a_cell(rng: np.random.Generator, outputs: Path) -> Path:
    return any_of(rng, sorted(path.parent for path in outputs.glob("*/seed-*/run.json")))


def a_place(rng: np.random.Generator, tree):
    """A container somewhere in a JSON tree, and a key of it."""
    while True:
        if not tree:
            return None, None
        key = any_of(rng, list(tree)) if isinstance(tree, dict) else int(rng.integers(len(tree)))
        if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.7:
            tree = tree[key]
        else:
            return tree, key


def change_json(rng: np.random.Generator, tree) -> None:
    for _ in range(int(rng.integers(1, 4))):
        within, key = a_place(rng, tree)
        if within is None:
            return
        if rng.random() < 0.25:
            within.pop(key)
        elif isinstance(within, dict) and rng.random() < 0.15:
            within[str(any_of(rng, HOSTILE))] = any_of(rng, HOSTILE)
        else:
            within[key] = any_of(rng, HOSTILE)


def change_bytes(rng: np.random.Generator, path: Path) -> None:
    """Cut, flipped, zeroed, emptied, exchanged, deep, gone, a folder in its place, or a link to elsewhere."""
    content = bytearray(path.read_bytes())
    match int(rng.integers(9)):
        case 0:
            content = content[: int(rng.integers(len(content) or 1))]
        case 1:
            for at in rng.integers(0, max(1, len(content)), 8):
                content[at] ^= 1 << int(rng.integers(8))
        case 2:
            start = int(rng.integers(len(content) or 1))
            content[start : start + 64] = bytes(64)
        case 3:
            content = bytearray()
        case 4:
            content = bytearray(rng.bytes(200))
        case 5:
            content = bytearray(b'{"a":' * 100_000)
        case 6:
            path.unlink()
            return
        case 7:
            path.unlink()
            path.mkdir()
            return
        case _:
            path.unlink()
            path.symlink_to(path.parents[2].parent / "secret.png" if rng.random() < 0.5 else path)
            return
    path.write_bytes(content)


def run_json(rng, outputs: Path) -> None:
    path = a_cell(rng, outputs) / "run.json"
    run = json.loads(path.read_bytes())
    change_json(rng, run)
    path.write_text(json.dumps(run))


def digests(rng, outputs: Path) -> None:
    for path in outputs.glob("*/seed-*/run.json"):
        run = json.loads(path.read_bytes())
        run["digests"][any_of(rng, ("data", "weights"))] = any_of(rng, HOSTILE)
        path.write_text(json.dumps(run))


def prompts(rng, outputs: Path) -> None:
    path = a_cell(rng, outputs) / "prompts.jsonl"
    lines = path.read_text().splitlines()
    at = int(rng.integers(len(lines)))
    line = json.loads(lines[at])
    change_json(rng, line)
    lines[at] = json.dumps(line)
    path.write_text("\n".join(lines))


def image_names(rng, outputs: Path) -> None:
    path = a_cell(rng, outputs) / "prompts.jsonl"
    secret = outputs.parent / "secret.png"
    names = (str(secret), "../../../secret.png", "images/../../../../secret.png", "images", ".", "a\0b", "x" * 5000, "../seed-1/run.json")
    lines = [json.loads(line) | {"image": any_of(rng, names)} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scores(rng, outputs: Path) -> None:
    path = a_cell(rng, outputs) / "scores.parquet"
    table = pd.read_parquet(path)
    name = any_of(rng, list(table.columns))
    match int(rng.integers(6)):
        case 0:
            table = table.drop(columns=name)
        case 1:
            table[name] = [str(any_of(rng, HOSTILE)).encode("utf-8", "replace").decode() for _ in range(len(table))]
        case 2:
            table[name] = any_of(rng, (np.nan, np.inf, -np.inf, 1e300, -1, 10**12, True, None))
        case 3:
            table = table.iloc[: int(rng.integers(len(table)))]
        case 4:
            table = pd.concat([table, table])
        case _:
            column = any_of(rng, ("condition", "metric"))
            table[column] = table[column].replace(any_of(rng, list(table[column].unique())), any_of(rng, (SCRIPT, "=x", "a|b", "../x", "")))
    table.to_parquet(path, index=False)


def files(rng, outputs: Path) -> None:
    change_bytes(rng, a_cell(rng, outputs) / any_of(rng, ("run.json", "prompts.jsonl", "scores.parquet")))


def pictures(rng, outputs: Path) -> None:
    path = any_of(rng, sorted((a_cell(rng, outputs) / "images").glob("*.png")))
    match int(rng.integers(4)):
        case 0:  # a picture of a format that no cell writes
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), SECRET).save(buffer, format=any_of(rng, ("GIF", "JPEG", "TIFF")))
            path.write_bytes(buffer.getvalue())
        case 1:  # 100,000 x 100,000 px, it says
            content = bytearray(path.read_bytes())
            content[16:24] = (100_000).to_bytes(4, "big") * 2
            path.write_bytes(content)
        case _:
            change_bytes(rng, path)


def folder_names(rng, outputs: Path) -> None:
    cell = a_cell(rng, outputs)
    if rng.random() < 0.5:
        cell.rename(cell.parent / any_of(rng, SEEDS))
    else:
        os.rename(cell.parent, os.path.join(outputs, any_of(rng, NAMES)))


def forecasts(rng, outputs: Path) -> None:
    cell = a_cell(rng, outputs).relative_to(outputs)
    path = outputs / "sweeps" / any_of(rng, ("mine-12345678", SCRIPT.replace("/", ""))) / "forecast.json"
    path.parent.mkdir(parents=True)
    content = {"seconds": 3.0, "cells": {str(cell): {"seconds": {"training": 1.0, "drawing": 2.0}, "bytes": 3.0}}}
    if rng.random() < 0.5:
        change_json(rng, content)
    else:
        content["cells"]["../" * 8 + "etc/seed-0"] = any_of(rng, HOSTILE)
    path.write_text(json.dumps(content))
    if rng.random() < 0.3:
        change_bytes(rng, path)


def records(rng, outputs: Path) -> None:
    """What reports on registered folders read besides."""
    path = outputs / any_of(rng, ("registration.json", "looks.json"))
    path.write_text(json.dumps(any_of(rng, HOSTILE)))


DAMAGES: tuple[Damage, ...] = (
    *(run_json, run_json, run_json, digests, prompts, prompts, image_names, scores, scores, files, files, pictures, pictures),
    *(folder_names, forecasts, records),
)


def template(folder: Path) -> Path:
    """Three arms at two seeds, as `ablations.run` leaves them behind."""
    outputs = folder / "template"
    if not outputs.exists():
        for settings in ({}, {"use_mse": False}, {"use_afe": False}):
            for seed in (0, 1):
                write_cell(outputs, settings, seed, num_prompts=2, num_candidates=2)
        # What is damaged here must be well before.
        assert len(assemble(outputs).sections[0].section.cells) == 6
    return outputs


def problem_of_report(outputs: Path, place: Path) -> str | None:
    to = place / "report"
    before = {path for path in place.rglob("*") if not path.is_relative_to(outputs)}
    try:
        written = write(assemble(outputs), to)
    except OneLineError as error:
        return None if len(str(error)) < 600 else f"{len(str(error))} characters: {error!s:.100}"
    outside = {path for path in place.rglob("*") if not path.is_relative_to(outputs) and not path.is_relative_to(to)} - before
    if outside:
        return f"written outside: {sorted(map(str, outside))[0]}"
    texts = {path: path.read_text(encoding="utf-8") for path in written.files if path.suffix in (".html", ".md", ".svg", ".csv", ".tex")}
    for path, text in texts.items():
        if path.suffix in (".html", ".md", ".svg") and "<script>alert" in text:
            return f"{path.name} has the script"
        if path.suffix == ".csv" and re.search(r"(^|,)\"?[=@]", text, re.MULTILINE):
            return f"{path.name} has a formula"
        if path.suffix == ".tex" and "\\input{/etc" in text:
            return f"{path.name} has TeX of others"
    return "a picture of elsewhere is shown" if has_secret(texts[written.page]) else None


def has_secret(page: str) -> bool:
    import base64

    for data in set(re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            if np.abs(np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0) - SECRET).max() < 12:
                return True
    return False


def problem_of_page(outputs: Path) -> str | None:
    browser = RunBrowser(outputs)
    listing = browser.list_runs()
    json.dumps(listing, allow_nan=False).encode()
    for run in listing["runs"]:
        shown = browser.grids({"runs": [run["name"]], "measure": "st_lpips", "order": "most diverse"})
        json.dumps(shown, allow_nan=False).encode()
        arm, _, seed = run["name"].rpartition("/")
        for name in ("../../../secret.png", "diversity_grid.png", "a\0b.png", "x" * 5000 + ".png", "images/../../../../secret.png"):
            try:
                found = browser.picture(arm, seed, name)
            except UserError:
                continue
            if not found.resolve().is_relative_to(outputs.resolve()):
                return f"{found} is given away"
    return None


def try_folders(seed: int, count: int, folder: Path) -> Tried:
    """Damage output folders and make a report of each, and look at it as the page does."""

    def attempt(rng: np.random.Generator, number: int) -> str | None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            outputs = Path(shutil.copytree(template(folder), Path(place) / "outputs"))
            Image.new("RGB", (64, 64), SECRET).save(Path(place) / "secret.png")
            done = []
            if rng.random() < 0.75:  # else changes are seen by their digests
                forget_digests(outputs)
            for _ in range(int(rng.integers(1, 4))):
                damage = any_of(rng, DAMAGES)
                try:
                    damage(rng, outputs)
                    done.append(damage.__name__)
                except (OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged too much to be damaged further
                    continue
            problem = problem_of_report(outputs, Path(place)) or problem_of_page(outputs)
            return problem and f"{'+'.join(done)}: {problem}"

    return each("folders", seed, count, attempt)


KIND = Kind("folders", try_folders, short=4, about="run folders of others, hostile or damaged, through report and page")
