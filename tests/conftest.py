"""What the tests of the networks share: backbones with the tiny architecture and random weights, and batches for them."""

from __future__ import annotations

import os
from collections.abc import Callable

# Before torch is imported, for the tests' own processes and those that they start: each test process has one core (pyproject.toml).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from faults.bench import pytest_addoption, pytest_terminal_summary  # noqa: F401  (hooks: their options are known wherever tests start)
from helpers import pretend_backend

pretend_backend.register()

PROMPTS = (
    ("a cat in the snow", "a cat in the snow at noon, oil painting, sharp focus"),
    ("a red boat", "a red boat in a harbour at sunset, watercolour, highly detailed"),
    ("a castle", "a castle on a hill at night, pixel art"),
    ("a robot in the rain", "a robot in the rain, neon light, comic"),
    ("a green tree", "a green tree in the fog, ink drawing, soft light"),
    ("a lonely book", "a lonely book, cinematic lighting, sharp focus, beautiful"),
)


@pytest.fixture(scope="session")
def small_backbones():
    """The tiny architecture, every weight a function of seed 0: no shipped weights are needed. Frozen: tests must not change it."""
    from lightning_modules.backbones.tiny import random_tiny_backbones

    return random_tiny_backbones(0)


@pytest.fixture(scope="session")
def make_batch(small_backbones) -> Callable[..., dict]:
    """A batch of records by id (0 to 5) as the data module gives it, with pictures of noise keyed by record id."""

    def images(ids) -> torch.Tensor:
        pixels = [np.random.default_rng([id_, 7]).uniform(-1, 1, (3, 64, 64)) for id_ in ids]
        return torch.from_numpy(np.stack(pixels)).float()

    def make(ids=(0, 1, 2, 3), epoch=0, cached=True, bank=(), grid=4, reads="class_and_patches") -> dict:
        backbones = small_backbones
        targets = backbones.tokenize_t5([PROMPTS[id_][1] for id_ in ids])
        target_tokens_BT = torch.full((len(ids), max(map(len, targets))), backbones.decoder.tokenizer.pad_token_id)
        for row, target in zip(target_tokens_BT, targets, strict=True):
            row[: len(target)] = torch.tensor(target)
        lengths_B1 = torch.tensor([[len(target)] for target in targets])
        batch = {
            "ids_B": torch.tensor(ids),
            "coarse_prompts": [PROMPTS[id_][0] for id_ in ids],
            "fine_prompts": [PROMPTS[id_][1] for id_ in ids],
            "draw_seeds": torch.tensor([[epoch, id_] for id_ in ids]),
            "text_tokens_BS": backbones.tokenize([PROMPTS[id_][0] for id_ in ids]),
            "target_tokens_BT": target_tokens_BT,
            "target_mask_BT": torch.arange(target_tokens_BT.shape[1]) < lengths_B1,
            "coarse_groups_B": torch.tensor(ids),
            "subject_groups_B": torch.tensor(ids),
        }
        vectors = backbones.image_vector_encoder(grid, reads)
        names = {"image_vectors": ("image_vectors_BKE", "bank_vectors_NKE"), "image_pooled": ("image_pooled_BE", "bank_pooled_NE")}
        if cached:
            latents = backbones.latent_encoder().encode(images(ids))
            batch |= {"latent_mean_BCHW": latents["latent_mean"], "latent_logvar_BCHW": latents["latent_logvar"]}
            batch |= {names[feature][0]: values for feature, values in vectors.encode(images(ids)).items()}
        else:
            batch["images_BCHW"] = images(ids)
        if bank:
            batch |= {names[feature][1]: values for feature, values in vectors.encode(images(bank)).items()}
            batch |= {"bank_groups_N": torch.tensor(bank), "bank_subject_groups_N": torch.tensor(bank)}
        return batch

    return make


# Files by what they take, in seconds on one core: the longest first, in turn to each of the two processes.
_LONGEST = {
    **{"test_sweep.py": 310, "test_wandb_sweep.py": 180, "test_real_language_model.py": 150, "test_ddp.py": 105, "test_stopping.py": 65},
    **{"test_pyiqa_metrics.py": 65},
    **{"test_export.py": 60, "test_refine_cli.py": 55, "test_shipped_backbones.py": 55, "test_training.py": 50, "test_compare.py": 35},
    **{"test_paper_scale.py": 40, "test_pretraining.py": 30, "test_cell.py": 35, "test_report.py": 25, "test_report_files.py": 25},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files stand at the head of each half of the list, so that no process is left alone with one at the end.

    Each of the two processes begins with one half, and takes from the end of the other's when it is done. Files stay whole, as their
    fixtures do.
    """
    heads: tuple[list[str], list[str]] = [], []
    for name in sorted(_LONGEST, key=_LONGEST.__getitem__, reverse=True):
        min(heads, key=lambda head: sum(_LONGEST[other] for other in head)).append(name)
    of: dict[str, list[pytest.Item]] = {}
    for item in items:
        of.setdefault(item.path.name if item.path.name in _LONGEST else "", []).append(item)
    first, second = ([item for name in head for item in of.get(name, [])] for head in heads)
    fast = of.get("", [])
    beside = max(0, len(items) // 2 - len(first))
    items[:] = [*first, *fast[:beside], *second, *fast[beside:]]
