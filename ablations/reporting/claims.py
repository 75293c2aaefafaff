"""The claims that are judged, their settings, checks, controls and margins, as claims.yaml fixes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ablations.results.registration import claims_content

WORSE, BETTER, NOT_BEST = ROW_IS = ("worse", "better", "not_best")


@dataclass(frozen=True)
class Control:
    """A positive control: in `table`, the row `better` must beat the row `than`, at the setting's endpoints or at its own by profile, in
    the setting's condition or in its own."""

    table: str
    better: str
    than: str
    condition: str = ""
    endpoints: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Setting:
    """Where a claim is judged: a condition, the endpoints by profile, and what shows that an effect would be seen there."""

    condition: str
    endpoints: Mapping[str, tuple[str, ...]]
    positive_control: Control


@dataclass(frozen=True)
class Check:
    """What a manipulation check of the treated arm must be: bounds, or a share of the measure `of`, or a distance, from the row
    without the treatment."""

    measure: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = ""
    times: float = 0.0
    above_row_by: float | None = None
    below_row_by: float | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; `rows` is None for every row but the reference, the placebo and the twins. The first setting is primary."""

    id: str
    title: str
    paper: str
    table: str
    rows: tuple[str, ...] | None
    row_is: str
    settings: tuple[Setting, ...]
    checks: tuple[Check, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Where it is judged, the primary condition first."""
        return tuple(dict.fromkeys(setting.condition for setting in self.settings))

    def endpoints_in(self, condition: str, profile: str) -> tuple[str, ...]:
        """The endpoints in a condition, of all settings that have it."""
        own = [setting.endpoints.get(profile, ()) for setting in self.settings if setting.condition == condition]
        return tuple(dict.fromkeys(name for names in own for name in names))


@lru_cache(maxsize=1)
def load_claims() -> tuple[Claim, ...]:
    """The claims, in the order of the file."""
    return tuple(_claim(raw) for raw in _content()["claims"])


@lru_cache(maxsize=8)
def margins(profile: str) -> Mapping[str, float]:
    """The smallest effect of interest by endpoint, in its units; empty for a profile without any."""
    return dict(_content()["margins"].get(profile, {}))


@lru_cache(maxsize=1)
def _content() -> Mapping[str, Any]:
    return claims_content()


def _claim(raw: Mapping[str, Any]) -> Claim:
    assert raw["row_is"] in ROW_IS, raw
    rows = None if raw["rows"] == "others" else tuple(raw["rows"])
    settings = tuple(
        Setting(each["condition"], _endpoints(each["endpoints"]), _control(each["positive_control"])) for each in raw["settings"]
    )
    checks = tuple(_check(each) for each in raw["check"])
    return Claim(raw["id"], raw["title"], raw["paper"], raw["table"], rows, raw["row_is"], settings, checks)


def _control(raw: Mapping[str, Any]) -> Control:
    own = raw.get("endpoints")
    return Control(raw["table"], raw["better"], raw["than"], raw.get("condition", ""), _endpoints(own) if own else None)


def _check(raw: Mapping[str, Any]) -> Check:
    share = raw.get("at_least_of") or {}
    plain = {name: value for name, value in raw.items() if name != "at_least_of"}
    return Check(**plain, of=share.get("measure", ""), times=share.get("times", 0.0))


def _endpoints(raw: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {profile: tuple(names) for profile, names in raw.items()}
