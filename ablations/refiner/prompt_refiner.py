"""PromptRefiner: a trained refiner for Python programs. Text in, refined prompts out, and pictures of either.

The command line, the page and this class give the same candidates for the same seed: a candidate's chance is a function of the
seed, the prompt's text and the candidate's number, derived as in a run's evaluation.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict, Unpack, overload

import torch
from PIL import Image

from ablations.cell.drawing.pictures import Sampling, draw_texts
from ablations.cell.loading.backbones import backbone_choice
from ablations.cell.loading.device import best_device, ready
from ablations.cell.loading.module import build_module
from ablations.cell.refining.refine import refine_settings
from ablations.cell.training.checkpoints import read_checkpoint
from ablations.config import KEYS, Config
from ablations.config.parsing import convert
from ablations.refiner import exported_refiner, hub_refiner
from ablations.refiner.candidates import CandidateWriter, RefinedPrompt, Wishes, check_unicode
from ablations.results.seen_words import SeenWords
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.loading import load_backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


class _Wished(TypedDict, total=False):
    any_piece: bool
    distinct: bool
    keep: str | Iterable[str]
    ban: str | Iterable[str]
    unfinished: bool


class Seldom(_Wished, total=False):
    """The arguments of `PromptRefiner.refine` that are seldom given, and by name alone."""

    rounds: int
    batch_size: int | None


class PromptRefiner:
    """A trained prompt refiner with the frozen networks it needs.

    Get one from a run, from a folder that `python -m ablations.export` wrote, or the embedded tiny one:

    >>> from ablations import PromptRefiner
    >>> refiner = PromptRefiner.from_run("outputs/my-arm/seed-0")
    >>> candidates = refiner.refine("a green tree")
    >>> [c.candidate for c in candidates]
    [0, 1, 2]
    >>> candidates[0].refined == "a green tree" + candidates[0].new_text
    True
    >>> candidates[0].num_new_tokens
    6

    To go on, refine the candidate that you like (strategy 1); or have the whole prompt written at once (strategy 2):

    >>> longer = refiner.refine(candidates[1].refined, seed=7)
    >>> longer[0].coarse == candidates[1].refined
    True
    >>> fuller = refiner.refine("a green tree", num_candidates=1, mode="rewrite", max_new_tokens=20)
    >>> fuller[0].num_new_tokens <= 20
    True
    """

    def __init__(
        self,
        module: PromptRefinerModule,
        config: Config,
        device: str | torch.device | None = None,
        seen: SeenWords | None = None,
    ):
        """`module` is trained; `config` is its cell's. `device` null: a GPU where torch sees one, else the CPU.

        `seen`: which words and pieces its training read; None: that is not known, so all pieces may be written and no word is unknown.
        """
        device = ready(torch.device(device) if device is not None else best_device())
        module.backbones.to(device)
        self.module = module.to(device).eval().requires_grad_(False)
        self.config, self.seen = config, seen
        # What the refiner is, for records: ARM/seed-SEED, or OWNER/NAME@COMMIT of one from a hub. "": it was made in memory.
        self.source = ""

    @classmethod
    def from_run(
        cls, run_dir: str | os.PathLike[str], backbones: Backbones | None = None, device: str | torch.device | None = None
    ) -> PromptRefiner:
        """The refiner that a run trained; `run_dir` is OUTPUT_DIR/ARM/seed-SEED.

        `backbones`: frozen networks that are loaded already, to share them between refiners of one profile. Raises UserError, a
        ValueError of one line, for a folder that is no run, an unfinished training, and backbones that are not there or not those
        that the run was trained on.
        """
        run = find_trained_run(run_dir)
        checkpoint = read_checkpoint(run.checkpoint)
        backbones = backbones or load_backbones_of(run.config)
        _check_weights(backbones, checkpoint["made_from"]["weights"], str(run_dir))
        module = build_module(run.config, backbones)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        refiner = cls(module, run.config, device, run.seen_words())
        refiner.source = str(run)
        return refiner

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str], backbones: Backbones | None = None, device: str | torch.device | None = None
    ) -> PromptRefiner:
        """The refiner that `python -m ablations.export` wrote to `directory`; it refines as the run's own does.

        In a folder's place a hub's `OWNER/NAME` or `OWNER/NAME@REVISION` may stand; `source` then says which commit it is. Only numbers and
        JSON are fetched, no code. The frozen T5 and the image model come from where the run had them, unless `backbones` hands them in.
        Raises as `from_run` does.

        >>> from ablations import PromptRefiner
        >>> refiner = PromptRefiner.from_pretrained("my-refiner")
        >>> refiner.refine("a green tree", seed=3) == PromptRefiner.from_run("outputs/my-arm/seed-0").refine("a green tree", seed=3)
        True
        """
        folder, found = hub_refiner.folder_of(directory)
        exported = exported_refiner.read(folder)
        backbones = backbones or load_backbones_of(exported.config)
        _check_weights(backbones, exported.weights_digest, str(directory))
        module = build_module(exported.config, backbones)
        exported_refiner.load_into(module, folder)
        refiner = cls(module, exported.config, device, exported_refiner.read_seen_words(folder))
        refiner.source = found or exported.made_from
        return refiner

    @classmethod
    def embedded(cls, backbones: Backbones | None = None, device: str | torch.device | None = None) -> PromptRefiner:
        """The tiny refiner that comes with the package: nothing to train, nothing to fetch. It claims nothing about Stable Diffusion 2.1.

        It is the compact export of a default run; `prompt_refiner/config.json` in `exported_refiner.EMBEDDED` says of which.

        >>> from ablations import PromptRefiner
        >>> refiner = PromptRefiner.embedded()
        >>> [candidate.refined.startswith("a green tree") for candidate in refiner.refine("a green tree", seed=0)]
        [True, True, True]
        """
        return cls.from_pretrained(exported_refiner.EMBEDDED, backbones, device)

    @property
    def backbones(self) -> Backbones:
        """The frozen networks: T5, OpenCLIP, VAE and UNet."""
        return self.module.backbones

    @overload
    def refine(self, prompts: str, **settings) -> list[RefinedPrompt]: ...

    @overload
    def refine(self, prompts: Sequence[str], **settings) -> list[list[RefinedPrompt]]: ...

    def refine(
        self,
        prompts: str | Sequence[str],
        num_candidates: int = 3,
        prompt_len: int = 6,
        mode: Literal["extend", "rewrite"] = "extend",
        seed: int = 0,
        max_new_tokens: int = 50,
        **seldom: Unpack[Seldom],
    ) -> list[RefinedPrompt] | list[list[RefinedPrompt]]:
        """The candidates of a prompt, or of each prompt of a list.

        Args:
            prompt_len: tokens that a round appends in mode extend. The user's text stays as it is.
            max_new_tokens: the longest prompt that mode rewrite writes.
            rounds: how often mode extend goes on from its own result, 1 by default.
            seed: another seed, other candidates. Equal seeds give equal candidates, on one machine.
            batch_size: how many candidates are written at a time. null: those of one prompt, so that a list gives exactly what its
                prompts give one by one. A number is faster for long lists, and equal up to float rounding, which seldom turns a token.
            any_piece: write any piece of the decoder's vocabulary, as the paper's protocol does. false: those alone that occur in the fine
                training texts, and nothing that goes on with the prompt's last word.
            distinct: draw a candidate that equals an earlier one again, at most 8 times.
            keep: words and phrases, with commas between them or as a list, that a rewriting must have.
            ban: words and phrases that are never written, not within longer words either. What the user wrote stays.
            unfinished: the prompt's last word is cut and may be gone on with, as in a candidate that is `truncated`.

        How tokens are sampled (top-p, top-k) and whether the decoder is primed with the prompt are the run's own settings. E_T reads
        a prompt's first 75 tokens. Other tools' syntax in a prompt is passed through (`refiner.prompt_syntax`). Raises ValueError, in one
        line, for a prompt without words, one of more than 512 tokens that is to be extended, and a value out of range.

        >>> from ablations import PromptRefiner
        >>> refiner = PromptRefiner.from_run("outputs/my-arm/seed-0")
        >>> both = refiner.refine(["a green tree", "a red boat"], num_candidates=2, prompt_len=4, seed=1)
        >>> [[c.num_new_tokens for c in candidates] for candidates in both]
        [[4, 4], [4, 4]]
        >>> both[1] == refiner.refine("a red boat", num_candidates=2, prompt_len=4, seed=1)
        True
        >>> refiner.refine("  ")
        Traceback (most recent call last):
        ...
        ablations.runtime.errors.UserError: the prompt is empty
        """
        num_candidates = _checked("eval.num_candidates", num_candidates)
        rounds, wishes = _seldom(**seldom)
        given = dataclasses.replace(
            self.config.eval,
            mode=_checked("eval.mode", mode),
            rounds=rounds,
            max_new_tokens=_checked("eval.max_new_tokens", max_new_tokens),
            any_piece=True,  # the rules are the caller's, not the run's
        )
        settings = refine_settings(_checked("prompt_len", prompt_len), given)
        grouped = self._writer.refine(prompts, num_candidates, _checked("seed", seed), settings, wishes)
        return grouped[0] if isinstance(prompts, str) else grouped

    @property
    def _writer(self) -> CandidateWriter:
        return CandidateWriter(self.module.refine, self.backbones.decoder, self.seen)

    def num_tokens(self, text: str) -> int:
        """How many tokens the decoder counts of a text, the end token left out."""
        return self._writer.num_tokens(text)

    def unknown_words(self, prompt: str) -> tuple[str, ...] | None:
        """The words of a prompt that no training text has, as they are typed, each once; None where it is not known what those had."""
        return self._writer.unknown_words(prompt)

    def draw(
        self, texts: str | Sequence[str], seeds: int | Sequence[int], plug_in: bool = False, batch_size: int | None = None
    ) -> list[Image.Image]:
        """A picture of each text by the refiner's image model, at the run's sampling steps and guidance.

        Args:
            seeds: a whole number from 0 for each text, or one for all. Equal seeds share all noise: draw a prompt and its refinement
                at a candidate's `image_seed` to compare them as a run's evaluation does. How many pictures are drawn at a time may
                change a colour by one level of 256.
            plug_in: read the texts with the trained E_T instead of the original text encoder; the empty prompt of guidance, too.
            batch_size: pictures at a time; null = the run's own.

        Raises ValueError for texts and seeds that do not match. A text may be empty: that draws what the model draws unasked.

        >>> from ablations import PromptRefiner
        >>> refiner = PromptRefiner.from_run("outputs/my-arm/seed-0")
        >>> best = refiner.refine("a green tree", num_candidates=1)[0]
        >>> before, after = refiner.draw([best.coarse, best.refined], seeds=best.image_seed)
        >>> after.size
        (64, 64)
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        numbers = [seeds] * len(texts) if isinstance(seeds, int) else list(seeds)
        if len(numbers) != len(texts):
            raise UserError(f"{len(texts)} texts but {len(numbers)} seeds: give one each, or one for all")
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
                raise UserError(f"a seed is a whole number from 0 to 2^63 - 1, not {number!r}")
        for text in texts:
            check_unicode(text)
        sampling = Sampling.of(self.config.eval)
        if batch_size is not None:
            sampling = dataclasses.replace(sampling, batch_size=_checked("eval.batch_size", batch_size))
        encoder = self.module.text_encoder if plug_in else self.backbones.text_encoder
        pictures = draw_texts(self.backbones, encoder, texts, numbers, sampling)
        return [Image.fromarray(pixels) for pixels in pictures]


def _seldom(rounds: int = 1, batch_size: int | None = None, **wishes: Unpack[_Wished]) -> tuple[int, Wishes]:
    batch_size = None if batch_size is None else _checked("eval.batch_size", batch_size)
    return _checked("eval.rounds", rounds), Wishes.of(**wishes, batch_size=batch_size)


def _checked(name: str, value: object):
    """The value, if it is what the config key of this name may be; the message names the argument."""
    key = KEYS[name]
    return convert(dataclasses.replace(key, name=name.rpartition(".")[2]), value)


def load_backbones_of(config: Config) -> Backbones:
    """The frozen networks of a cell. Raises UserError where they are not there."""
    try:
        return load_backbones(backbone_choice(config))
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error


def _check_weights(backbones: Backbones, digest: str, source: str) -> None:
    if backbones.digest != digest:
        raise UserError(
            f"{source} was trained on frozen networks of digest {digest}, but those here have {backbones.digest}: "
            "get the networks that it was trained on, or train again"
        )
