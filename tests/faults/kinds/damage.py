"""Damaged files of every sort of ours: noticed in one line, or made again to equal results."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from faults.bench import Kind, Tried, each
from faults.small_cell import copy_of_finished, forget_cells, small_cell

DEEP = b"[" * 200_000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 346621\n"


def damaged(path: Path, others: Sequence[Path], rng: np.random.Generator) -> tuple[str, bytes]:
    """What is done to the file, in words, and its new content, which differs from the old one."""
    content = path.read_bytes()
    while True:
        way = str(rng.choice(["truncated", "flipped", "zeroed", "swapped", "empty", "pointer", "misshapen", "deep"]))
        new = _ways()[way](bytearray(content), path, others, rng)
        if new != content:
            return way, bytes(new)


def _ways() -> dict[str, Callable[[bytearray, Path, Sequence[Path], np.random.Generator], bytes]]:
    return {
        "truncated": lambda content, path, others, rng: content[: int(rng.integers(len(content) + 1))],
        "flipped": _flipped,
        "zeroed": _zeroed,
        "swapped": lambda content, path, others, rng: others[int(rng.integers(len(others)))].read_bytes(),
        "empty": lambda content, path, others, rng: b"",
        "pointer": lambda content, path, others, rng: POINTER,
        "misshapen": lambda content, path, others, rng: _misshapen(path, rng),
        "deep": lambda content, path, others, rng: DEEP,
    }


def _flipped(content: bytearray, path: Path, others: Sequence[Path], rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 4)) if content else 0):
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return content


def _zeroed(content: bytearray, path: Path, others: Sequence[Path], rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content) + 1)), int(2 ** rng.uniform(0, 12))
    content[start : start + length] = bytes(len(content[start : start + length]))
    return content


def _misshapen(path: Path, rng: np.random.Generator) -> bytes:
    """A whole file of its format with something else in it."""
    import pandas as pd
    import torch
    from PIL import Image

    stream = io.BytesIO()
    ending = path.suffix
    if ending == ".npy":
        np.save(stream, np.zeros((2, int(rng.integers(1, 9))), np.float32))
    elif ending == ".npz":
        np.savez(stream, keys=np.array(["a", "b"]), rows=np.zeros((int(rng.integers(1, 4)), 2)))
    elif ending == ".png":
        Image.new("RGB", (int(rng.integers(1, 99)), 64)).save(stream, "PNG")
    elif ending == ".ckpt":
        torch.save([{"state_dict": {}}, {"state_dict": 1, "global_step": 2, "made_from": {}}, [1]][int(rng.integers(3))], stream)
    elif ending == ".parquet":
        columns = ["metric", "value", "condition"][: int(rng.integers(1, 4))]
        pd.DataFrame({name: ["a", "b"] for name in columns}).to_parquet(stream)
    elif ending == ".safetensors":
        from safetensors.torch import save

        return save({"a": torch.zeros(2)})
    elif ending == ".csv":
        return b"step,loss\n1,2,3,4\n,,\n"
    else:
        shapes = [[], {}, 7, "text", None, {"status": "finished", "config": {}}, {"status": "finished", "config": 3}]
        return json.dumps(shapes[int(rng.integers(len(shapes)))]).encode()
    return stream.getvalue()


class _Bench:
    """What is damaged: a finished cell, a stopped one, the embedded export and the tiny networks, each with how it is read again."""

    def __init__(self, folder: Path):
        from ablations.refiner.exported_refiner import EMBEDDED
        from lightning_modules.backbones.tiny import TINY
        from lightning_modules.backbones.whole_files import require_whole

        self.cell, self.work = small_cell(), folder / "work"
        self.pristine, self.begun = copy_of_finished(folder / "finished"), folder / "stopped"
        self.run_folder = next(self.pristine.glob("tiny-*/seed-0")).relative_to(self.pristine)
        self.results = _results(self.pristine)
        self.cell.stopped(self.begun)
        require_whole(TINY)
        self.export, self.networks = folder / "export", folder / "networks"
        shutil.copytree(EMBEDDED, self.export)
        shutil.copytree(TINY, self.networks)
        self.others = [path for root in (self.pristine, self.export) for path in sorted(root.rglob("*")) if path.is_file()]
        self.sorts: dict[str, tuple[Path, str, Callable[[Path], str | None]]] = {
            "final.ckpt": (self.pristine, "trainings/**/final.ckpt*", self._run_again),
            "last.ckpt": (self.begun, "trainings/**/last.ckpt*", self._run_again),
            "features": (self.pristine, "cache/features/*/*", self._run_again),
            "cached pictures": (self.pristine, "cache/pictures/**/*.png", self._run_again),
            "cached scores": (self.pristine, "cache/scores/**/*.npz", self._run_again),
            "metrics.csv of a training": (self.begun, "trainings/**/metrics.csv*", self._run_again),
            "seen_words.json": (self.pristine, "trainings/**/seen_words.json", self._run_again),
            "checks.json": (self.pristine, "trainings/**/checks.json", self._run_again),
            "run.json": (self.pristine, f"{self.run_folder}/run.json", self._run_same),
            "scores.parquet": (self.pristine, f"{self.run_folder}/scores.parquet", self._read_left),
            "prompts.jsonl": (self.pristine, f"{self.run_folder}/prompts.jsonl", self._read_left),
            "pictures": (self.pristine, f"{self.run_folder}/images/*.png", self._read_left),
            "export": (self.export, "*/*", self._load_export),
            "networks": (self.networks, "**/*", self._load_networks),
        }

    def attempt(self, rng: np.random.Generator, number: int) -> str | None:
        sort = list(self.sorts)[5 * number % len(self.sorts)]  # a few are of different sorts
        root, pattern, read_again = self.sorts[sort]
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(root, self.work)
        paths = [path for path in sorted(self.work.glob(pattern)) if path.is_file() and not path.name.startswith(".")]
        path = paths[int(rng.integers(len(paths)))]
        way, content = damaged(path, self.others, rng)
        path.write_bytes(content)
        where = f"{sort}: {path.relative_to(self.work)} {way}"
        try:
            problem = read_again(path)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        return None if problem is None else f"{where}: {problem}"

    def _run_again(self, path: Path) -> str | None:
        """The same command, where the cell is not there but its training and what is cached are."""
        forget_cells(self.work)
        return self._run_same(path)

    def _run_same(self, path: Path) -> str | None:
        ended = self.cell.run(self.work)
        if problem := ended.problem((0, 1, 2)):
            return problem
        # Said in one line; then the same command makes it anew.
        if ended.code and (problem := self.cell.run(self.work).problem()):
            return f"said once, but again: {problem}"
        if _results(self.work) == self.results:
            return None
        # Rows of a curve cannot be had again: that they are lost is said.
        return None if path.name.startswith("metrics.csv") and "metrics.csv is damaged" in ended.said else "other results"

    def _read_left(self, path: Path) -> str | None:
        from ablations.results.picture_files import PictureFiles
        from ablations.results.prompts_and_scores import read_prompts, read_scores

        readers = {".parquet": read_scores, ".jsonl": read_prompts, ".png": lambda path: PictureFiles([path])[0]}
        read = readers[path.suffix]
        return _equal_or_one_line(lambda: read(path), lambda: read(self.pristine / path.relative_to(self.work)))

    def _load_export(self, path: Path) -> str | None:
        from ablations.cell.loading.module import build_module
        from ablations.refiner.exported_refiner import load_into, read, read_seen_words

        def load(folder: Path):
            module = build_module(read(folder).config, self.cell.backbones)
            load_into(module, folder)
            seen = read_seen_words(folder)
            return (seen and sorted(seen.words)), [(name, value.numpy()) for name, value in sorted(module.state_dict().items())]

        return _equal_or_one_line(lambda: load(self.work), lambda: load(self.export))

    def _load_networks(self, path: Path) -> str | None:
        from lightning_modules.backbones.loading import BackboneChoice, load_backbones

        return _equal_or_one_line(
            lambda: load_backbones(BackboneChoice(directory=str(self.work))).digest,
            lambda: load_backbones(BackboneChoice()).digest,
        )


def _equal_or_one_line(read: Callable[[], object], whole: Callable[[], object]) -> str | None:
    try:
        found = read()
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        return None if "\n" not in said else f"{type(error).__name__} of several lines: {said[:200]!r}"
    return None if _plain(found) == _plain(whole()) else "used without a word"


def _plain(value: object) -> object:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return value.to_json()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _results(output_dir: Path) -> dict:
    """What a finished cell left: everything but when and how it came about."""
    from helpers.small_sweeps import results_in

    return results_in(output_dir)


def try_damage(seed: int, count: int, folder: Path) -> Tried:
    bench = _Bench(folder)
    return each("damage", seed, count, bench.attempt)


KIND = Kind("damage", try_damage, short=5, about="random damage of each sort of file of ours")
