"""The manipulation checks of every arm that was trained, beside its twins and the arm without AFE, and whether AFE was delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config import KEYS, from_flat_dict, to_flat_dict
from ablations.config.names import train_id
from ablations.reporting.claims import load_claims
from ablations.results.looking import Run, look_at_run
from ablations.runtime.errors import UserError
from ablations.runtime.files import write_json
from ablations.runtime.foreign import is_folder, within
from lightning_modules.terms import terms_on

# Heading, decimals.
COLUMNS = {
    "afe_cosine_to_pooled": ("cosine to pooled", 3),
    "afe_entropy_share": ("entropy share", 2),
    "afe_cosine_to_mean_weights": ("cosine to mean weights", 3),
    "afe_retrieval_coarse": ("coarse to picture", 3),
    "afe_retrieval_coarse_mean_weights": ("mean weights", 3),
    "afe_retrieval_coarse_other_weights": ("another's weights", 3),
    "afe_retrieval_fine": ("fine to picture", 3),
    "pooled_retrieval_coarse": ("coarse to pooled", 3),
    "clip_accuracy": ("own of 64", 3),
    "mse_gap_closed": ("L_mse's gap closed", 2),
    "text_loss": ("L_text", 3),
}


@dataclass(frozen=True)
class CheckedArm:
    """A training's settings and its checks by seed."""

    settings: Mapping[str, Any]
    checks: Mapping[int, Mapping[str, float]]

    @property
    def has_afe(self) -> bool:
        return bool(self.settings["use_afe"])

    @property
    def beside(self) -> tuple:
        """Equal for arms that differ in AFE alone."""
        return tuple((key, value) for key, value in self.settings.items() if key != "use_afe" and not key.startswith("afe."))

    @property
    def label(self) -> str:
        """As in "layers, uniform, forcing 0.3", and the loss terms."""
        if not self.has_afe:
            words = ["without AFE"]
        else:
            weights, forcing = self.settings["afe.weights"], self.settings["afe.forcing"]
            twin = [weights] if weights != "learned" else []
            words = [self.settings["afe.reading"], *twin, *([f"forcing {forcing:g}"] if forcing else [])]
        return f"{', '.join(words)} ({' + '.join(term.title for term in terms_on(self.settings))})"


def failures(checks: Mapping[str, float], without_afe: Mapping[str, float] | None) -> list[str]:
    """Why AFE was not delivered in a seed, as names of checks; empty where it was. The bounds are those of the claim about AFE.

    `without_afe` are the checks of the arm without AFE at this seed; where there is none the comparison with it fails.
    """
    (claim,) = (claim for claim in load_claims() if claim.id == "afe")
    failed = []
    for bound in claim.checks:
        value, whole = checks[bound.measure], (without_afe or {}).get(bound.of)
        is_within = (bound.at_least is None or value >= bound.at_least) and (bound.at_most is None or value <= bound.at_most)
        if not is_within or (bound.of and (whole is None or value < bound.times * whole)):
            failed.append(bound.measure)
    return failed


def checked_arms(output_dir: Path) -> list[CheckedArm]:
    """Every training under OUTPUT_DIR whose cells were checked, arms that differ in AFE alone side by side.

    Raises UserError where there is no folder, or nothing was checked.
    """
    if not is_folder(output_dir):
        raise UserError(f"there is no folder {str(output_dir)!r}: give the output_dir of your runs")
    settings: dict[str, dict] = {}
    found: dict[str, dict[int, dict[str, float]]] = {}
    for path in within(output_dir, "*/seed-*/run.json"):
        run = look_at_run(path.parent)
        if not isinstance(run, Run) or run.status != "finished" or not run.checks:
            continue
        config = from_flat_dict(run.config)
        name = train_id(config)
        settings[name] = {key: value for key, value in to_flat_dict(config).items() if KEYS[key].option.kind == "train"}
        found.setdefault(name, {})[config.seed] = run.checks
    if not found:
        raise UserError(f"no finished cell in {output_dir} has manipulation checks: run cells with train.check_records above 0")
    arms = [CheckedArm(settings[name], found[name]) for name in found]
    return sorted(arms, key=lambda arm: (repr(arm.beside), not arm.has_afe, arm.label))


def without_afe_beside(arm: CheckedArm, arms: Sequence[CheckedArm]) -> Mapping[int, Mapping[str, float]]:
    """The checks, by seed, of the arm that differs from this one in having no AFE; empty where there is none."""
    return next((other.checks for other in arms if not other.has_afe and other.beside == arm.beside), {})


def verdict(arm: CheckedArm, without: Mapping[int, Mapping[str, float]]) -> str:
    """As in "in 5 of 5 seeds", or "in 3 of 5 seeds; fails afe_entropy_share in 1, 4"; "" without AFE."""
    if not arm.has_afe:
        return ""
    failed = {seed: failures(checks, without.get(seed)) for seed, checks in sorted(arm.checks.items())}
    reasons = dict.fromkeys(name for names in failed.values() for name in names)
    words = [f"{name} in {', '.join(str(seed) for seed, names in failed.items() if name in names)}" for name in reasons]
    said = f"in {sum(not names for names in failed.values())} of {len(failed)} seeds"
    return f"{said}; fails {'; '.join(words)}" if words else said


def shown(values: Sequence[float], digits: int) -> str:
    """A mean, and the range over seeds where there are several: "0.70 (0.68-0.72)"."""
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def study_checks(output_dir: Path, to: Path | None) -> None:
    """Print the table, and write every arm's figures to `to` if it is given. Raises UserError as `checked_arms` does."""
    from rich.console import Console
    from rich.table import Table

    arms = checked_arms(output_dir)
    table = Table("arm", "seeds", *(heading for heading, _ in COLUMNS.values()), "AFE delivered", title="manipulation checks: mean (range)")
    for arm in arms:
        rows = [checks for _, checks in sorted(arm.checks.items())]
        cells = []
        for name, (_, digits) in COLUMNS.items():
            values = [checks[name] for checks in rows if name in checks]
            cells.append(shown(values, digits) if values else "")
        table.add_row(arm.label, str(len(rows)), *cells, verdict(arm, without_afe_beside(arm, arms)))
    Console(width=max(220, Console().width)).print(table)
    if to is not None:
        verdicts = {arm.label: verdict(arm, without_afe_beside(arm, arms)) for arm in arms}
        content = [{"arm": arm.label, "delivered": verdicts[arm.label], "checks": arm.checks} for arm in arms]
        write_json(to, content)
