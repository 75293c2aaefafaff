"""A condition of one's own: the coarse prompt with one fixed style, for every user the same. Does refining do more than that?

    python -m ablations.run plugins=plugin_condition

Every evaluation prompt is then drawn, scored and tabulated under it too, beside `coarse`, `refined` and the others.
"""

from __future__ import annotations

from ablations.results.conditions import Condition, Round, always, as_they_are, register

STYLE = ", oil painting, highly detailed"


def with_fixed_style(round: Round):
    """A text for each of the round's prompts. `round.module.refine(texts, round.seeds, round.settings)` would have the refiner write."""
    return as_they_are([text + STYLE for text in round.coarse])


register(
    Condition(
        "control_fixed_style",  # letters, digits and _: it stands in the names of pictures
        "control: one fixed style for all prompts",  # its row in tables
        when=always,  # or a question about config.eval, as in lambda config: config.controls
        write=with_fixed_style,
        is_control=True,  # it should not help
        compared=True,  # its candidates are compared with one another, which gives it a diversity
        depends_on=(),  # the texts are the same whatever was trained: sweeps draw them once
        note="the style is added as it stands, to every prompt",
    )
)
