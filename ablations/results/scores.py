"""A score: one value of a metric, and what it is a value of. The columns of scores.parquet are its fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from ablations.results.prompts_and_scores import Drawing

# In place of a candidate's number: a value of several candidates together. In place of a prompt's: of all pictures of a condition.
SEVERAL, WHOLE_SET = -1, -1
_NO_NOISE, _NO_PICTURE = -1, ""


class Score(NamedTuple):
    """A metric's value for a picture, for the candidates of a prompt together, or for a condition as a whole."""

    prompt_id: int
    condition: str
    candidate: int
    metric: str
    value: float
    image_seed: int
    image: str

    @classmethod
    def of_picture(cls, drawing: Drawing, metric: str, value: float) -> Score:
        place = drawing.prompt_id, drawing.condition, drawing.candidate
        return cls(*place, metric, float(value), drawing.image_seed, drawing.image)

    @classmethod
    def of_set(cls, prompt_id: int, condition: str, metric: str, value: float) -> Score:
        """Of the candidates of a prompt together."""
        return cls(prompt_id, condition, SEVERAL, metric, float(value), _NO_NOISE, _NO_PICTURE)

    @classmethod
    def of_condition(cls, condition: str, metric: str, value: float) -> Score:
        """Of all pictures of a condition together."""
        return cls.of_set(WHOLE_SET, condition, metric, value)


COLUMNS = Score._fields


def table_of(scores: Iterable[Score]) -> pd.DataFrame:
    """The scores as rows, in order."""
    import pandas as pd

    return pd.DataFrame(list(scores), columns=list(COLUMNS))
