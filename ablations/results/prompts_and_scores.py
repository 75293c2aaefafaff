"""prompts.jsonl and scores.parquet: the one writer and the one reader of each. Loads pandas and Pillow where they are needed alone.

prompts.jsonl has a JSON object a line, one for each picture and for each text without one (`image` is ""): PROMPT_FIELDS.
scores.parquet is a long table, a row for each value: prompt_id, condition, candidate (-1: of all candidates together), metric, value,
image_seed, image. A comparison's files have other fields beside those; they are written and read by the same functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.results.conditions import all_conditions
from ablations.results.left_files import require_as_left
from ablations.results.looking import picture_within
from ablations.results.picture_files import PictureFiles
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import whole_file, write_atomically
from ablations.runtime.foreign import Unreadable, is_file, parse_json, readable

if TYPE_CHECKING:
    import pandas as pd

PROMPTS, SCORES = "prompts.jsonl", "scores.parquet"
# What each field of a line holds.
PROMPT_FIELDS: dict[str, type] = {
    **{"prompt_id": int, "condition": str, "candidate": int, "coarse": str, "refined": str, "prompt_seed": int, "image_seed": int},
    **{"num_new_tokens": int, "truncated": bool, "image": str},
}
# Numbers of prompts and candidates are from here on, and below.
_LEAST, _MOST = {"prompt_id": -1, "candidate": -1}, 2**31
# Where a parquet file has the digests of its columns.
_DIGESTS = "digests"
# What a row of scores is of, and what it is.
SCORE_COLUMNS = ("prompt_id", "condition", "candidate", "metric", "value")


@dataclass(frozen=True)
class Drawing:
    """A text, and the picture to draw of it: the keys of their chance. `image` is a path within the run folder.

    `by_trained_encoder` says which text encoder tells the UNet about the text: the trained E_T, or the original one. A text that is not
    `drawn` is scored as a text alone; its `image` is "".
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
    drawn: bool = True

    @property
    def image(self) -> str:
        if not self.drawn:
            return ""
        return f"images/{self.prompt_id:04d}-{self.condition}-{self.candidate}.png"


def prompt_line(drawing: Drawing) -> dict[str, Any]:
    """The drawing as a line of prompts.jsonl."""
    fields = asdict(drawing) | {"refined": drawing.text, "image": drawing.image}
    return {name: fields[name] for name in PROMPT_FIELDS}


def write_prompts(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines as JSON, whole or not at all. Raises RunFolderError where the file cannot be written."""
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_prompts(path: Path, fields: Iterable[str] = PROMPT_FIELDS) -> list[dict[str, Any]]:
    """The lines of a prompts.jsonl, in order, each with at least `fields`.

    Raises UserError, naming file and line, for a file that is not there or cannot be read, a torn line, and a field that is missing or of
    another type.
    """
    try:
        require_as_left(path)
        # Not splitlines(): JSON leaves line separators of Unicode within a text as they are.
        texts = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})") from error
    wanted = tuple(fields)
    return [_line(path, number, text, wanted) for number, text in enumerate(texts, start=1) if text.strip()]


def _line(path: Path, number: int, text: str, fields: Sequence[str]) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        line = parse_json(text)
    except Unreadable as error:
        raise UserError(f"{where} is torn or damaged: {error}") from error
    if not isinstance(line, dict):
        raise UserError(f"{where} is no JSON object")
    for name in fields:
        if name not in line:
            raise UserError(f"{where} has no {name!r}")
        if type(line[name]) is not PROMPT_FIELDS[name]:
            raise UserError(f"{where}: {name!r} is no {PROMPT_FIELDS[name].__name__}: {line[name]!r:.60}")
    for name, least in _LEAST.items():
        if name in fields and not least <= line[name] < _MOST:
            raise UserError(f"{where}: {name!r} is {line[name]}, which no run writes")
    return line


def read_drawings(prompts_jsonl: Path) -> tuple[list[Drawing], PictureFiles]:
    """The drawings of a finished cell and the pictures of those that are drawn, as `plan_drawings` and `draw` gave them.

    Raises as `read_prompts` does; no picture is read yet.
    """
    lines = [{name: line[name] for name in PROMPT_FIELDS} for line in read_prompts(prompts_jsonl)]
    pictures = []
    for line in lines:
        name = line.pop("image")
        line["drawn"] = bool(name)
        if name:
            pictures.append(picture_within(prompts_jsonl.parent, name))
    trained = {name for name, condition in all_conditions().items() if condition.by_trained_encoder}
    drawings = [Drawing(text=line.pop("refined"), by_trained_encoder=line["condition"] in trained, **line) for line in lines]
    return drawings, PictureFiles(pictures)


def drawn(drawings: Iterable[Drawing]) -> list[Drawing]:
    """Those that have a picture, in order: what an array of pictures belongs to."""
    return [drawing for drawing in drawings if drawing.drawn]


def write_scores(path: Path, table: pd.DataFrame) -> None:
    """Write scores as parquet, whole or not at all.

    Raises UserError where a value is not finite: such a value is a failure and must not be averaged. RunFolderError where the file
    cannot be written.
    """
    _require_finite(path, table)
    # Where a metric has no rows, pandas makes columns of objects of numbers, and parquet numbers of these: the digests are of what is read.
    table = table.infer_objects().reset_index(drop=True)
    table.attrs = {_DIGESTS: {name: _digest_of(table[name]) for name in table.columns}}
    with whole_file(path) as aside:
        table.to_parquet(aside, index=False)


def write_long_scores(path: Path, table: pd.DataFrame, split_by: str = "metric") -> None:
    """Write scores of many cells as a small parquet, whole or not at all: texts as dictionaries, values as float32, zstd.

    Rows of one `split_by` stand together, a row group each, so that one metric can be read without the others. Raises RunFolderError where
    the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [name for name in table.columns if name not in ("seed", "prompt_id", "candidate", "value")]
    small = {name: "category" for name in texts} | {"seed": "int32", "prompt_id": "int32", "candidate": "int8", "value": "float32"}
    ordered = table.astype({name: kind for name, kind in small.items() if name in table}).sort_values(
        [split_by, "condition", "arm", "seed", "prompt_id", "candidate"], kind="stable"
    )
    with whole_file(path) as aside:
        schema = pa.Schema.from_pandas(ordered, preserve_index=False).remove_metadata()
        with pq.ParquetWriter(aside, schema, compression="zstd", compression_level=15) as writer:
            for _, part in ordered.groupby(split_by, observed=True, sort=False):
                writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))


def read_long_scores(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """What `write_long_scores` wrote, with `columns` alone. Raises OSError, ValueError or KeyError for a file that is no such table."""
    import pandas as pd

    return pd.read_parquet(path, columns=list(columns))


def read_scores(path: Path, columns: Sequence[str] = SCORE_COLUMNS) -> pd.DataFrame:
    """The rows of a scores.parquet, with `columns` alone.

    Raises UserError for a file that is not there, cannot be read, is empty or lacks a column, and where a value is not finite, naming the
    file, and the prompt and metric of the first such value.
    """
    import pandas as pd

    if not is_file(path):
        raise UserError(f"{path} is missing")
    try:
        require_as_left(path)
        scores = pd.read_parquet(path, columns=list(columns))
        digests = scores.attrs.pop(_DIGESTS, {})
        different = [name for name in columns if name in digests and digests[name] != _digest_of(scores[name])]
    except UserError:
        raise
    except Exception as error:  # pyarrow fails to read a torn file in many ways
        raise UserError(f"{path} cannot be read ({one_line(error).replace(str(path), 'it')[:160]})") from error
    if different:
        raise UserError(f"{path} is damaged (its column {different[0]!r} is not what was written)")
    if scores.empty:
        raise UserError(f"{path} is empty")
    _require_types(path, scores)
    _require_finite(path, scores)
    return scores


def _require_types(path: Path, scores: pd.DataFrame) -> None:
    """Raises UserError for a column that is of another type than a run writes, or has gaps."""
    from pandas.api import types

    for name in scores.columns:
        column = scores[name]
        if name in ("prompt_id", "candidate", "seed", "image_seed"):
            is_well = types.is_integer_dtype(column) and (name != "candidate" or column.between(-1, _MOST).all())
        elif name == "value":
            is_well = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
        else:
            is_well = all(isinstance(text, str) and readable(text) == text for text in column.unique())
        if not is_well:
            raise UserError(f"{path} cannot be read: its column {name!r} holds what no run writes")


def _digest_of(column: pd.Series) -> str:
    """Of a column's values, whatever parquet makes of them on the way."""
    import numpy as np

    if column.dtype.kind in "biuf":
        content = np.ascontiguousarray(column.to_numpy()).tobytes()
    else:
        content = "\0".join(map(str, column.where(column.notna(), ""))).encode()
    return hashlib.sha256(f"{len(column)} ".encode() + content).hexdigest()[:32]


def _require_finite(path: Path, table: pd.DataFrame) -> None:
    import numpy as np

    try:
        bad = np.flatnonzero(~np.isfinite(table.value.to_numpy(dtype=np.float64)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} has values that are no numbers ({one_line(error)[:100]})") from error
    if bad.size:
        first = table.iloc[bad[0]]
        where = f"{first['metric']} of prompt {first['prompt_id']}" + (f", {first['condition']}" if "condition" in table else "")
        raise UserError(f"{bad.size} of {len(table)} values in {path} are not finite, the first is {where}")
