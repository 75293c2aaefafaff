"""What was fixed before a sweep's first cell: claims, endpoints, margins, N, and digests of code, data and weights.

`python -m ablations.plan FILE --register REGISTRATION.json` writes it, `ablations.sweep` copies it to OUTPUT_DIR/registration.json, and the
report says what kept to it (`kept_to.py`). The file is JSON without a path of the machine, so that it can be committed: git then shows that
it came first. It holds a digest of itself, so that a change by hand is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ablations.results.looking import is_plain_name
from ablations.results.run_folder import read_run
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import write_json
from ablations.runtime.foreign import Unreadable, is_there, read_json, shown

REGISTRATION = "registration.json"
CLAIMS_FILE = Path(__file__).parents[1] / "reporting" / "claims.yaml"
_FORMAT = 1


@dataclass(frozen=True)
class Planned:
    """The sweep: its name, digests of its file and of its cells, and N.

    `arms` are the folder names of arms, by what tells them apart in the sweep (as in "ablation=full"); every arm runs at every seed.
    `num_prompts` x `num_candidates` are drawn, `num_text_prompts` are refined without pictures.
    """

    sweep: str
    file_digest: str
    cells_digest: str
    arms: Mapping[str, str]
    seeds: tuple[int, ...]
    num_prompts: int
    num_text_prompts: int
    num_candidates: int

    @property
    def cells(self) -> tuple[str, ...]:
        """ARM/seed-N of every planned cell."""
        return tuple(f"{arm}/seed-{seed}" for arm in self.arms.values() for seed in self.seeds)


@dataclass(frozen=True)
class Prediction:
    """What a comparison is predicted to be able to say, in the endpoint's units.

    `half_width` of the 95% interval; `power` to find a difference as large as the margin; `equivalence`, the chance that the interval lies
    within the margin if there is no difference; None where no variance was measured. `components` are the variances of a paired difference
    (seed, prompt, seed x prompt, candidate), `measured_in` says where they come from.
    """

    claim: str
    row: str
    condition: str
    endpoint: str
    margin: float | None
    half_width: float | None
    power: float | None
    equivalence: float | None
    components: Mapping[str, float]
    measured_in: str


@dataclass(frozen=True)
class ExpectedUndecided:
    """A claim that the planned N is not expected to decide in a condition, at some endpoints, and the N that it would take, in words."""

    claim: str
    condition: str
    endpoints: tuple[str, ...]
    needs: str


@dataclass(frozen=True)
class Registration:
    """Everything that was fixed. `claims` is the content of claims.yaml as it was; `made` an ISO time in UTC; digests are hexadecimal.

    `code_digests` are by what the files do: training, refining, drawing, scoring, judging.
    """

    made: str
    planned: Planned
    claims: Any
    predictions: tuple[Prediction, ...]
    expected_undecided: tuple[ExpectedUndecided, ...]
    code_digests: Mapping[str, str]
    code_revision: str | None
    data_digest: str
    weights_digest: str
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def claims_digest(self) -> str:
        return claims_digest(self.claims)

    @property
    def digest(self) -> str:
        """Of all of it: what to quote."""
        return _digest(_content(self))

    def predicted(self, claim: str, condition: str, endpoint: str, row: str | None = None) -> Prediction | None:
        """The prediction for a comparison, of the widest row where `row` is None; None where there is none."""
        wanted = (claim, condition, endpoint)
        found = [p for p in self.predictions if (p.claim, p.condition, p.endpoint) == wanted and row in (None, p.row)]
        return max(found, key=lambda prediction: prediction.half_width or 0.0, default=None)


def claims_content(path: Path = CLAIMS_FILE) -> Any:
    """claims.yaml as it is now."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def claims_digest(content: Any) -> str:
    """16 hex digits of what claims.yaml says; its comments and its layout do not count."""
    return _digest(content)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def now() -> str:
    """The time as registrations and looks write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _content(registration: Registration) -> dict[str, Any]:
    return json.loads(json.dumps({"format": _FORMAT, **asdict(registration)}))


def write_registration(path: Path, registration: Registration) -> None:
    """Write it whole or not at all, with its digest. Raises UserError where the file exists already, RunFolderError where it cannot be."""
    if is_there(path):
        raise UserError(f"{path} exists already: a registration is made once; choose another name, or delete it if no cell was run by it")
    write_json(path, {**_content(registration), "digest": registration.digest})


def read_registration(path: Path) -> Registration:
    """The registration in a file.

    Raises UserError in one line for a file that is not there, no registration, of another version, or changed since it was made.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no registration {shown(path)!r}: python -m ablations.plan FILE --register makes one") from error
    except Unreadable as error:
        raise UserError(f"{path} cannot be read as a registration ({one_line(error)}): take it from where it was committed") from error
    if not isinstance(content, dict) or "planned" not in content or "claims" not in content:
        raise UserError(f"{path} is no registration: python -m ablations.plan FILE --register makes one")
    if content.pop("format", None) != _FORMAT:
        raise UserError(f"{path} is a registration of another version of the format than {_FORMAT}: read it with the code that wrote it")
    stated = content.pop("digest", None)
    try:
        registration = _built(content)
        if not all(map(is_plain_name, registration.planned.arms.values())):
            raise ValueError("an arm of it is no name of a folder")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is a damaged registration ({one_line(error)}): take it from where it was committed") from error
    if registration.digest != stated:
        raise UserError(f"{path} was changed after it was made: its digest does not fit; take it from where it was committed")
    return registration


def _built(content: Mapping[str, Any]) -> Registration:
    parts = {
        "planned": Planned(**{**content["planned"], "seeds": tuple(content["planned"]["seeds"])}),
        "predictions": tuple(Prediction(**each) for each in content["predictions"]),
        "expected_undecided": tuple(
            ExpectedUndecided(**{**each, "endpoints": tuple(each["endpoints"])}) for each in content["expected_undecided"]
        ),
    }
    return Registration(**{**content, **parts})


def registration_of(output_dir: Path) -> Registration | None:
    """The registration of an output folder, or None. Raises UserError for one that is damaged."""
    path = output_dir / REGISTRATION
    return read_registration(path) if is_there(path) else None


def register_folder(output_dir: Path, registration: Registration, cells: Iterable[str]) -> None:
    """Copy a registration into the folder of the sweep whose cells (ARM/seed-N) are about to run.

    Raises UserError where these are not the planned cells, where one of them was begun before the registration was made, and where the
    folder has another registration.
    """
    _require_planned(registration.planned, set(cells))
    there = registration_of(output_dir)
    if there is not None:
        if there.digest != registration.digest:
            raise UserError(f"{output_dir} has another registration, of {there.made}: choose another output_dir")
        return
    early = [name for name in registration.planned.cells if (at := begun(output_dir / name)) and at < registration.made]
    if early:
        raise UserError(f"{early[0]} in {output_dir} was begun before the registration was made: choose another output_dir")
    write_registration(output_dir / REGISTRATION, registration)


def _require_planned(planned: Planned, cells: set[str]) -> None:
    arms, seeds = {cell.partition("/")[0] for cell in cells}, {int(cell.rpartition("-")[2]) for cell in cells}
    if seeds != set(planned.seeds):
        raise UserError(f"the registration plans seeds {listed(planned.seeds)}, the sweep has {listed(sorted(seeds))}")
    named = {arm: label for label, arm in planned.arms.items()}
    if missing := [named[arm] for arm in named if arm not in arms]:
        raise UserError(f"the sweep lacks an arm that the registration plans, {missing[0]}: a key of it has changed since")
    if further := sorted(arms - set(named)):
        raise UserError(
            f"the sweep has an arm that the registration does not plan, {further[0]}: its file, or a key of it, has changed since"
        )
    if cells != set(planned.cells):
        raise UserError("the registration plans every arm at every seed, and the sweep does not have them all")


def listed(values: Sequence[int]) -> str:
    """Whole numbers with commas between them."""
    return ", ".join(map(str, values))


def begun(folder: Path) -> str | None:
    """When a cell was begun, None where it was not."""
    run = read_run(folder)
    return str(run["started"]) if run and run.get("started") else None
