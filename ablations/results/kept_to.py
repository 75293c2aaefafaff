"""What kept to the registration of an output folder, and the looks that were taken before its planned cells had finished.

A report on a registered folder that is made before every planned cell has finished is a *look*. None is planned: each is kept in
OUTPUT_DIR/looks.json, since who looks often and stops at the first interval without 0 errs more often than the interval says (7.9 to
12.6% instead of 3.3 to 4.8% when looking after each seed from 3 to 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablations.results.provenance import code_digests
from ablations.results.registration import Planned, Registration, begun, claims_content, claims_digest, listed, now
from ablations.results.run_folder import read_run
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import write_json
from ablations.runtime.foreign import Unreadable, read_json

LOOKS = "looks.json"


@dataclass(frozen=True)
class Kept:
    """One thing that was registered, whether it was kept to, and that in one line."""

    what: str
    is_kept: bool
    line: str


@dataclass(frozen=True)
class Look:
    """A report on a registered folder before its planned cells had finished: when (ISO, UTC), and how many of how many had."""

    made: str
    finished: int
    planned: int


def finished_runs(output_dir: Path, planned: Planned) -> dict[str, dict[str, Any]]:
    """run.json of the planned cells that have finished, by ARM/seed-N."""
    runs = {name: read_run(output_dir / name) for name in planned.cells}
    return {name: run for name, run in runs.items() if run is not None and run["status"] == "finished"}


def kept_to(registration: Registration, output_dir: Path, claims: Any = None) -> tuple[Kept, ...]:
    """What was registered and whether the output folder keeps to it, a line each: order, N, claims, code, data, weights, libraries, looks.

    claims: the content of claims.yaml by which the report judges; as it is now by default.
    """
    runs = finished_runs(output_dir, registration.planned)
    now_claims = claims_digest(claims_content() if claims is None else claims)
    return (
        _order(registration, output_dir),
        _size(registration.planned, runs, output_dir),
        _same("claims, endpoints and margins", registration.claims_digest, {now_claims}),
        *_code(registration, runs),
        _same("data", registration.data_digest, {str(run.get("digests", {}).get("data")) for run in runs.values()}),
        _same("weights", registration.weights_digest, {str(run.get("digests", {}).get("weights")) for run in runs.values()}),
        _libraries(registration, runs),
        _looks(output_dir),
    )


def _order(registration: Registration, output_dir: Path) -> Kept:
    starts = sorted(filter(None, (begun(output_dir / name) for name in registration.planned.cells)))
    if not starts:
        return Kept("order", True, f"registered {registration.made}; no cell has begun")
    is_kept = starts[0] >= registration.made
    return Kept("order", is_kept, f"registered {registration.made}, first cell begun {starts[0]}{'' if is_kept else ': BEFORE it'}")


def _size(planned: Planned, runs: Mapping[str, Any], output_dir: Path) -> Kept:
    """Whether exactly the planned cells of the planned arms have finished."""
    there = {
        f"{path.parent.parent.name}/{path.parent.name}" for arm in planned.arms.values() for path in output_dir.glob(f"{arm}/*/run.json")
    }
    further = sorted({name.rpartition("-")[2] for name in there - set(planned.cells)})
    size = f"{len(planned.seeds)} seeds x {planned.num_prompts} prompts x {planned.num_candidates} candidates, {len(planned.arms)} arms"
    line = f"{len(runs)} of {len(planned.cells)} planned cells have finished ({size})"
    line += f"; beyond the plan: seed {', '.join(further)}" if further else ""
    return Kept("N", len(runs) == len(planned.cells) and not further, line)


def _same(what: str, registered: str, found: set[str]) -> Kept:
    if not found:
        return Kept(what, True, f"{what}: nothing has finished yet")
    if found == {registered}:
        return Kept(what, True, f"{what}: as registered ({registered[:8]})")
    others = ", ".join(sorted(digest[:8] for digest in found - {registered}))
    return Kept(what, False, f"{what}: registered {registered[:8]}, found {others}")


def _code(registration: Registration, runs: Mapping[str, Mapping[str, Any]]) -> list[Kept]:
    """A line for each thing that code does; the code that judges is the one that runs now, the others are those of the cells."""
    lines = []
    for part, registered in registration.code_digests.items():
        if part == "judging":
            found = {code_digests()[part]}
        else:
            found = {str((run.get("code_digests") or {}).get(part, "not recorded")) for run in runs.values()}
        lines.append(_same(f"code that is for {part}", registered, found))
    return lines


def _libraries(registration: Registration, runs: Mapping[str, Mapping[str, Any]]) -> Kept:
    changed = sorted(
        {
            f"{name} {version} instead of {registration.versions.get(name)}"
            for run in runs.values()
            for name, version in (run.get("versions") or {}).items()
            if registration.versions.get(name) != version
        }
    )
    return Kept("libraries", not changed, f"libraries: {'; '.join(changed) if changed else 'as registered'}")


def _looks(output_dir: Path) -> Kept:
    looks = read_looks(output_dir)
    if not looks:
        return Kept("looks", True, "looks before the planned cells had finished: none")
    counts = sorted({look.finished for look in looks})
    return Kept("looks", False, f"looks beyond the plan: {len(counts)}, at {listed(counts)} of {looks[-1].planned} cells")


def read_looks(output_dir: Path) -> tuple[Look, ...]:
    """The looks that OUTPUT_DIR/looks.json has, oldest first. Raises UserError for a damaged file."""
    path = output_dir / LOOKS
    try:
        looks = tuple(Look(**each) for each in read_json(path, dict)["looks"])
        if not all(isinstance(look.made, str) and type(look.finished) is type(look.planned) is int for look in looks):
            raise Unreadable("its looks are none")
        return looks
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}): looks that were taken cannot be told any more") from error


def note_look(output_dir: Path, registration: Registration) -> tuple[Look, ...]:
    """To be called by whatever shows results: keeps this look if planned cells are still to finish; returns all looks beyond the plan.

    Further looks at the same number of finished cells show nothing new and are not kept.
    """
    looks = read_looks(output_dir)
    planned, finished = len(registration.planned.cells), len(finished_runs(output_dir, registration.planned))
    if finished < planned and finished not in {look.finished for look in looks}:
        looks = (*looks, Look(now(), finished, planned))
        write_json(output_dir / LOOKS, {"looks": [asdict(look) for look in looks]})
    return looks
