"""Claims about parquet, saved data sets and folders of pictures: the same records and reasons as a CSV table, pictures read lazily."""

from __future__ import annotations

import csv
import json
import pickle
import re
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.cfp import CFPDataModule
from datamodules.images import ImageChecker, content_digest, load_pixels
from datamodules.readers.source import read_source
from datamodules.settings import DataSettings
from datamodules.stored_images import StoredImage

NUM_ROWS = 10
FINE = [f"a cat number {i}, oil painting, sharp focus" for i in range(NUM_ROWS)]
COARSE = [[f"cat {i}", f"a cat number {i}", f"a cat number {i}, oil"] for i in range(NUM_ROWS)]


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def pixels(i: int) -> np.ndarray:
    return np.random.default_rng([i, 3]).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def png(i: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels(i)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(i) for i in range(NUM_ROWS)]


def write_csv(folder: Path) -> Path:
    """The CSV table that every other layout is compared with."""
    folder.mkdir(parents=True)
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fine-grained prompt", "coarse-grained prompt", "image_path"])
        for i in range(NUM_ROWS):
            (folder / f"{i}.png").write_bytes(PICTURES[i])
            writer.writerow([FINE[i], json.dumps([{"prompt": text} for text in COARSE[i]]), f"{i}.png"])
    return folder / "table.csv"


def hf_rows(count: int = NUM_ROWS) -> dict:
    return {
        "fine-grained prompt": FINE[:count],
        "coarse-grained prompt": [[{"prompt": text} for text in texts] for texts in COARSE[:count]],
        "image": [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(PICTURES[:count])],
        "seed": list(range(100, 100 + count)),
    }


def write_parquet(path: Path, rows: dict | None = None, row_group_size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows or hf_rows()), path, row_group_size=row_group_size)
    return path


def write_parquet_folder(folder: Path) -> Path:
    rows = pa.table(hf_rows())
    for part, (start, length) in enumerate(((0, 4), (4, 6))):
        write_parquet(folder / "data" / f"train-0000{part}-of-00002.parquet", rows.slice(start, length).to_pydict())
    (folder / "README.md").write_text("a data set")
    return folder


def write_saved(folder: Path, splits: bool = False) -> Path:
    import datasets

    features = datasets.Features(
        {
            "fine-grained prompt": datasets.Value("string"),
            "coarse-grained prompt": [{"prompt": datasets.Value("string")}],
            "image": datasets.Image(),
            "seed": datasets.Value("int64"),
        }
    )
    whole = datasets.Dataset.from_dict(hf_rows(), features=features)
    data = datasets.DatasetDict(train=whole.select(range(7)), test=whole.select(range(7, NUM_ROWS))) if splits else whole
    data.save_to_disk(folder)
    return folder


def write_image_folder(folder: Path, metadata: str) -> Path:
    folder.mkdir(parents=True)
    for i in range(NUM_ROWS):
        (folder / f"{i}.png").write_bytes(PICTURES[i])
    rows = [{"file_name": f"{i}.png", "fine": FINE[i], "coarse": COARSE[i][0]} for i in range(NUM_ROWS)]
    if metadata == "csv":
        with open(folder / "metadata.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif metadata == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif metadata == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    else:
        for i in range(NUM_ROWS):
            (folder / f"{i}.txt").write_text(FINE[i] + "\n")
    return folder


LAYOUTS = {
    "one parquet file": lambda folder: write_parquet(folder / "table.parquet"),
    "one row group": lambda folder: write_parquet(folder / "table.parquet", row_group_size=1000),
    "parquet folder": write_parquet_folder,
    "saved data set": write_saved,
    "saved dictionary": lambda folder: write_saved(folder, splits=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_records_and_pictures_of_the_csv_table(tmp_path, layout):
    expected = read_source(write_csv(tmp_path / "csv"), None, count_tokens)
    read = read_source(LAYOUTS[layout](tmp_path / "other"), None, count_tokens)
    assert (read.total, read.bad, read.any_image) == (NUM_ROWS, [], True)
    for record, other in zip(read.records, expected.records, strict=True):
        assert (record.id, record.fine_prompt, record.coarse_prompts) == (other.id, other.fine_prompt, other.coarse_prompts)
        assert record.metadata["seed"] == str(100 + record.id)
        assert np.array_equal(load_pixels(record, 16), pixels(record.id)) and np.array_equal(load_pixels(other, 16), pixels(other.id))


@pytest.mark.parametrize("metadata", ["csv", "jsonl", "parquet", "captions"])
def test_image_folder_reads_metadata_files_and_captions(tmp_path, metadata):
    read = read_source(write_image_folder(tmp_path / "folder", metadata), None, count_tokens)
    assert (read.total, read.bad) == (NUM_ROWS, [])
    assert [record.fine_prompt for record in read.records] == FINE
    for record in read.records:
        assert record.image == tmp_path / "folder" / f"{record.id}.png"
        expected = (f"a cat number {record.id}", 3) if metadata == "captions" else (COARSE[record.id][0], 1)
        assert (record.coarse_prompts[0], len(record.coarse_prompts)) == expected


def test_metadata_files_of_subfolders_name_pictures_beside_themselves(tmp_path):
    for split in ("test", "train"):
        write_image_folder(tmp_path / "root" / split, "jsonl")
    read = read_source(tmp_path / "root", None, count_tokens)
    assert [record.id for record in read.records] == list(range(2 * NUM_ROWS))
    assert [record.image.parent.name for record in read.records] == ["test"] * NUM_ROWS + ["train"] * NUM_ROWS


def test_reading_records_touches_no_picture(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "table.parquet")
    asked = []
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, *a, **k: asked.append(k["columns"]) or whole(self, *a, **k))
    read = read_source(path, None, count_tokens)
    assert asked == [["fine-grained prompt", "coarse-grained prompt", "seed"]]
    read.records[4].image.read_bytes()
    assert asked[1:] == [["image"]]


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_stored_pictures_are_the_same_in_any_order(tmp_path, order, monkeypatch):
    monkeypatch.setattr("datamodules.stored_images._ROWS_AT_ONCE", 2)
    path = write_parquet(tmp_path / f"{order}.parquet", row_group_size=7)
    rows = {"forward": range(NUM_ROWS), "backward": reversed(range(NUM_ROWS)), "shuffled": np.random.default_rng(0).permutation(NUM_ROWS)}
    for row in rows[order]:
        assert StoredImage(path, "image", int(row)).read_bytes() == PICTURES[row]


def test_a_stored_picture_is_small_to_send_to_a_worker_and_reads_there(tmp_path):
    image = read_source(write_saved(tmp_path / "saved"), None, count_tokens).records[3].image
    sent = pickle.dumps(image)
    assert len(sent) < 1000 and pickle.loads(sent).read_bytes() == PICTURES[3]


def test_image_columns_may_hold_bytes_paths_or_nothing(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(PICTURES[1])
    plain = {"prompt": FINE[:3], "jpg": PICTURES[:3]}
    read = read_source(write_parquet(tmp_path / "a" / "t.parquet", plain), None, count_tokens)
    assert [record.image.read_bytes() for record in read.records] == PICTURES[:3]
    paths = {"prompt": FINE[:3], "image_path": ["1.png", "pictures/1.png", None]}
    read = read_source(write_parquet(tmp_path / "b" / "t.parquet", paths), tmp_path / "pictures", count_tokens)
    assert [record.image for record in read.records] == [tmp_path / "pictures" / "1.png"] * 2 + [None]
    read = read_source(write_parquet(tmp_path / "c" / "t.parquet", {"text": FINE[:3]}), None, count_tokens)
    assert (read.any_image, len(read.records)) == (False, 3)


def test_cells_without_a_picture_and_damaged_ones_are_told_apart(tmp_path):
    cells = [
        {"bytes": PICTURES[0], "path": None},
        None,
        {"bytes": None, "path": "gone.png"},
        {"bytes": b"not a picture", "path": None},
        {"bytes": PICTURES[4][:90], "path": None},
        {"bytes": None, "path": "there.png"},
    ]
    (tmp_path / "there.png").write_bytes(PICTURES[5])
    read = read_source(write_parquet(tmp_path / "t.parquet", {"prompt": FINE[:6], "image": cells}), None, count_tokens)
    assert (read.records[2].image, read.missing) == (None, {2: "no image 'gone.png'"})
    found = ImageChecker(None, lambda line: None).check([record.image for record in read.records if record.image])
    problems = [found[record.image].problem if record.image else "" for record in read.records]
    assert problems[0] == problems[5] == "" and read.records[5].image == tmp_path / "there.png"
    assert problems[1] == "the cell holds no image"
    assert problems[3] == "not a picture" and "truncated" in problems[4].lower()
    digests = {image: checked.digest for image, checked in found.items()}
    assert content_digest(read.records[0], digests) and not content_digest(read.records[1], digests)


def test_each_damaged_row_is_one_bad_record_with_its_reason(tmp_path):
    broken = pa.array([b"a cat", b"a c\xe2\x80t", b"  ", None, b"a\0b", b"a tree"], pa.binary()).view(pa.string())
    coarse = [["a", "b", "c"]] * 5 + [["a", "b"]]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"fine": broken, "coarse": coarse, "image": ["x.png"] * 6}), path)
    read = read_source(path, None, count_tokens)
    assert [(bad.id, bad.reason) for bad in read.bad] == [
        (1, "encoding"), (2, "empty_prompt"), (3, "empty_prompt"), (4, "encoding"), (5, "coarse_list"),
    ]  # fmt: skip
    assert [record.id for record in read.records] == [0] and read.total == 6


def test_bad_rows_of_an_image_folder_are_numbered_and_named(tmp_path):
    folder = write_image_folder(tmp_path / "folder", "jsonl")
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    lines[2] = lines[2][:20]
    lines[4] = json.dumps({"file_name": "4.png", "fine": 4, "coarse": "x"})
    lines[5] = json.dumps(["5.png"])
    lines[6] = json.dumps({"file_name": "6.png", "coarse": "x"})
    (folder / "metadata.jsonl").write_text("\n".join(lines[:9]) + "\n")
    read = read_source(folder, None, count_tokens)
    assert [(bad.id, bad.line, bad.reason) for bad in read.bad[:4]] == [
        (2, 3, "malformed"), (4, 5, "not_text"), (5, 6, "malformed"), (6, 7, "empty_prompt"),
    ]  # fmt: skip
    assert {bad.detail for bad in read.bad[4:]} >= {"9.png is in no metadata file", "2.png is in no metadata file"}
    assert read.total == len(read.records) + len(read.bad)


def test_captions_and_pictures_that_lack_each_other_are_bad_records(tmp_path):
    folder = write_image_folder(tmp_path / "folder", "captions")
    (folder / "3.txt").unlink()
    (folder / "5.png").unlink()
    (folder / "7.txt").write_bytes(b"\xff\xfe")
    (folder / "8.txt").write_text(" \n")
    read = read_source(folder, None, count_tokens)
    assert [(bad.id, bad.reason) for bad in read.bad] == [(3, "no_caption"), (5, "missing_image"), (7, "encoding"), (8, "empty_prompt")]
    assert [record.id for record in read.records] == [0, 1, 2, 4, 6, 9]


def test_a_source_that_fits_no_layout_is_one_line_that_says_what_would(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.source=.*nowhere is not there; name a CSV or parquet file, a folder with"):
        read_source(tmp_path / "nowhere", None, count_tokens)
    with pytest.raises(ValueError, match="no column holds the fine prompt; columns found: 'a'; expected one of fine-grained prompt, fine"):
        read_source(write_parquet(tmp_path / "a" / "t.parquet", {"a": ["x"]}), None, count_tokens)
    torn = write_parquet(tmp_path / "b" / "t.parquet")
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read as parquet .*: fetch it again"):
        read_source(tmp_path / "b", None, count_tokens)
    write_csv(tmp_path / "c")
    with pytest.raises(ValueError, match=r"found: 10 \.png, 1 \.csv files; a table there is named itself: data\.source=.*table\.csv"):
        read_source(tmp_path / "c", None, count_tokens)
    saved = write_saved(tmp_path / "d")
    next(saved.glob("*.arrow")).unlink()
    with pytest.raises(ValueError, match="cannot be read as a saved data set"):
        read_source(saved, None, count_tokens)
    folder = write_image_folder(tmp_path / "e", "jsonl")
    (folder / "metadata.jsonl").write_text('{"picture": "1.png", "text": "a"}\n')
    with pytest.raises(ValueError, match="no column file_name"):
        read_source(folder, None, count_tokens)


class PixelEncoder:
    """Stands for a frozen network: the picture's own pixels, averaged to 2 x 2."""

    name, digest = "latents", "pixels"

    def shapes(self):
        return {"latent_mean": (3, 2, 2), "latent_logvar": (3, 2, 2)}

    def encode(self, images_BCHW):
        mean = images_BCHW.unflatten(3, (2, 8)).unflatten(2, (2, 8)).mean((3, 5))
        return {"latent_mean": mean, "latent_logvar": -mean}


def data_module(source: Path, cache_dir: Path, **options) -> CFPDataModule:
    def tokenize(texts):
        import torch

        return torch.tensor([[1, *map(ord, text[:75].ljust(75)), 2] for text in texts])

    tokenizers = SimpleNamespace(
        tokenize=tokenize, tokenize_t5=lambda texts: [[5, 1] for _ in texts], t5_pad_id=0, count_tokens=count_tokens
    )
    settings = DataSettings(
        source, 16, 4, cache_dir=cache_dir, **{"num_validation": 2, "clean_captions": False, "own_split": False} | options
    )
    return CFPDataModule(settings, 0, tokenizers, [PixelEncoder()], lambda line: None)


def test_the_splits_of_a_saved_dictionary_are_kept_to(tmp_path):
    data = data_module(LAYOUTS["saved dictionary"](tmp_path / "other"), tmp_path / "cache", own_split=True, num_validation=9)
    assert {record.metadata["split"] for record in data.train_records} == {"train"}
    assert {record.metadata["split"] for record in data.validation_records} == {"test"}
    assert (len(data.train_records), len(data.validation_records)) == (7, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_on_any_layout_is_training_on_the_csv_table(tmp_path, layout):
    table = data_module(write_csv(tmp_path / "csv"), tmp_path / "cache-csv")
    other = data_module(LAYOUTS[layout](tmp_path / "other"), tmp_path / "cache-other")
    assert table.digest == other.digest
    assert [record.id for record in table.validation_records] == [record.id for record in other.validation_records]
    one, two = (next(iter(data.train_dataloader())) for data in (table, other))
    assert one["coarse_prompts"] == two["coarse_prompts"]
    assert (one["latent_mean_BCHW"] == two["latent_mean_BCHW"]).all()


def test_uncached_batches_with_workers_read_stored_pictures(tmp_path):
    data = data_module(write_parquet(tmp_path / "t.parquet"), tmp_path / "cache", cache=False, num_workers=2)
    batch = next(iter(data.train_dataloader()))
    for record_id, image in zip(batch["ids_B"].tolist(), batch["images_BCHW"], strict=True):
        plain = np.asarray((image + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        assert any(np.array_equal(view, pixels(record_id)) for view in (plain, plain[:, ::-1]))


def test_bad_records_of_parquet_go_into_the_manifest(tmp_path):
    rows = {"prompt": [*FINE[:9], ""], "image": [*PICTURES[:8], b"torn", PICTURES[9]]}
    data = data_module(write_parquet(tmp_path / "t.parquet", rows), tmp_path / "c", manifest_path=tmp_path / "m.json", max_bad_fraction=0.3)
    data.setup("fit")
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["layout"] == "parquet: 'prompt', 'image'"
    assert [(bad["id"], bad["reason"]) for bad in manifest["bad"]] == [(8, "corrupt_image"), (9, "empty_prompt")]
