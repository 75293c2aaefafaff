"""The most frequent modifiers of the training prompts, appended: what one gets without reading the prompt at all.

A modifier is what stands between commas in a fine prompt, after the first comma (before it stands what the picture shows). Each
counts once a prompt, in lower case. Appended are whole modifiers that the coarse prompt does not have yet, until they make up
`prompt_len` of the refiner's tokens or more: the baseline never gets less text than the refiner, and no word of it is cut.

`most_frequent` takes them in the order of their frequency, as prompt writers' guides do: all candidates of a prompt are the same
text. `frequent_drawn` draws them, for each candidate anew, in proportion to their frequency and without replacement, out of the
top-k with mass top-p: the fair opponent where diversity is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ablations.baselines.base import Asked, Written
from ablations.baselines.register import Context, Method, register
from ablations.runtime.errors import UserError
from datamodules.phrases import count_phrases
from lightning_modules.settings import TokenSampling

_TAG = 0x4D0D


class FrequentModifiers:
    """Appends the most frequent modifiers of the training prompts; with `drawn`, a keyed draw in proportion to their frequency.

    `fine_prompts()` gives the training prompts; `count_tokens` counts a text's tokens as the refiner's decoder does. `num_modifiers`
    appends so many, in place of `prompt_len` tokens. `sampling` bounds what is drawn from, modifiers in the place of tokens.
    """

    def __init__(
        self,
        fine_prompts: Callable[[], Iterable[str]],
        count_tokens: Callable[[str], int],
        prompt_len: int,
        *,
        drawn: bool,
        num_modifiers: int | None = None,
        sampling: TokenSampling | None = None,
    ):
        self.name = "frequent_drawn" if drawn else "most_frequent"
        self.title = "frequent modifiers, drawn" if drawn else "most frequent modifiers"
        amount = f"{num_modifiers} of them" if num_modifiers else f"until they make up {prompt_len} tokens"
        how = "drawn for each candidate in proportion to their frequency" if drawn else "in the order of their frequency"
        self.about = f"modifiers of the training prompts, appended {how}, {amount}"
        self._fine_prompts, self._count_tokens = fine_prompts, count_tokens
        self._prompt_len, self._num_modifiers, self._drawn = prompt_len, num_modifiers, drawn
        self._sampling = sampling or TokenSampling()
        self.counts: list[tuple[str, int]] = []

    def prepare(self) -> None:
        if not self.counts:
            self.counts = count_phrases(self._fine_prompts())
        if not self.counts:
            raise UserError(f"{self.name}: no training prompt has a modifier after a comma; leave it out of --methods")

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        self.prepare()
        return [self._write(one) for one in asked]

    def _write(self, asked: Asked) -> Written:
        own = {" ".join(part.split()).casefold() for part in asked.coarse_prompt.split(",")}
        before = self._count_tokens(asked.coarse_prompt)
        text, number = asked.coarse_prompt, 0
        for modifier in (modifier for modifier in self._order(asked.key) if modifier not in own):
            gap = " " if text.rstrip().endswith(",") else ", "
            text, number = text.rstrip() + gap + modifier if number else asked.coarse_prompt + gap + modifier, number + 1
            enough = number >= self._num_modifiers if self._num_modifiers else self._count_tokens(text) - before >= self._prompt_len
            if enough:
                break
        if not number:
            return Written.failed("the prompt has every modifier already")
        return Written(text, self._count_tokens(text) - before)

    def _order(self, key: int) -> list[str]:
        if not self._drawn:
            return [modifier for modifier, _ in self.counts]
        import numpy as np

        kept = self.counts[: self._sampling.top_k or None]
        shares = np.array([count for _, count in kept], dtype=np.float64)
        shares /= shares.sum()
        # As nucleus sampling has it: up to and with the one at which the mass reaches top-p.
        num_kept = int(np.searchsorted(np.cumsum(shares), self._sampling.top_p - 1e-12)) + 1
        # The order of log p + Gumbel noise is that of draws without replacement.
        scores = np.log(shares[:num_kept]) + np.random.default_rng([key, _TAG]).gumbel(size=len(shares[:num_kept]))
        return [kept[i][0] for i in np.argsort(-scores, kind="stable")]

    def close(self) -> None:
        pass

    def cost(self) -> str:
        return ""


def _build(context: Context, drawn: bool) -> FrequentModifiers:
    return FrequentModifiers(
        context.train_prompts,
        context.count_tokens,
        context.config.prompt_len,
        drawn=drawn,
        num_modifiers=context.num_modifiers,
        sampling=context.sampling,
    )


register(
    Method(
        "most_frequent",
        "most frequent modifiers",
        "modifiers (what stands between commas in the training prompts) in the order of their frequency, appended until they make up "
        "prompt_len tokens; the same text for every candidate",
        lambda context: _build(context, drawn=False),
        reads_data=True,
        order=100,
    )
)
register(
    Method(
        "frequent_drawn",
        "frequent modifiers, drawn",
        "the same, but drawn for each candidate in proportion to their frequency: the fair opponent in diversity",
        lambda context: _build(context, drawn=True),
        reads_data=True,
        order=110,
    )
)
