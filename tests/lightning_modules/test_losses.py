"""The loss terms, each against the same thing written by other means."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.losses import ClipContrastiveLoss, DiffusionNoiseLoss, FeatureMatchingLoss, TextConversionLoss


def vectors(rows: int, seed: int, width: int = 16) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_l_clip_without_equal_groups_is_two_plain_cross_entropies():
    text, images = vectors(5, 1), vectors(5, 2)
    logits = 10 * F.normalize(text, dim=-1) @ F.normalize(images, dim=-1).T
    own = torch.arange(5)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss, accuracy = ClipContrastiveLoss(10.0)(text, images, torch.arange(5))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert accuracy.item() == pytest.approx((logits.argmax(1) == own).float().mean().item())


def test_l_clip_of_a_known_case():
    text = torch.eye(2)
    loss, accuracy = ClipContrastiveLoss(3.0)(text, text, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3.0)), abs=1e-6)
    assert accuracy.item() == 1.0


def test_l_clip_never_takes_records_of_one_coarse_prompt_for_negatives_of_each_other():
    text, images = vectors(4, 3), vectors(4, 4)
    groups = torch.tensor([7, 7, 8, 9])
    images.requires_grad_(True)
    loss_function = ClipContrastiveLoss(10.0)
    logits = loss_function.logits(text, images, groups, groups)
    assert torch.isinf(logits).nonzero().tolist() == [[0, 1], [1, 0]]
    # Row 0 against images 2 and 3 only, by hand, in both directions.
    plain = 10 * F.normalize(text, dim=-1) @ F.normalize(images, dim=-1).T
    candidates = [[0, 2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    rows = sum(plain[i, c].logsumexp(0) - plain[i, i] for i, c in enumerate(candidates)) / 4
    columns = sum(plain[c, i].logsumexp(0) - plain[i, i] for i, c in enumerate(candidates)) / 4
    loss, _ = loss_function(text, images, groups)
    assert loss.item() == pytest.approx(((rows + columns) / 2).item(), abs=1e-5)
    loss.backward()
    assert torch.isfinite(images.grad).all()


def test_l_clip_masks_bank_entries_of_the_own_coarse_prompt():
    text, images, bank = vectors(2, 5), vectors(2, 6), vectors(1, 7)
    loss_function = ClipContrastiveLoss(10.0)
    plain, _ = loss_function(text[:1], torch.cat([images[:1], images[1:]])[:1], torch.tensor([0]), images[1:], torch.tensor([1]))
    masked, _ = loss_function(text[:1], images[:1], torch.tensor([0]), torch.cat([images[1:], bank]), torch.tensor([1, 0]))
    assert masked.item() == pytest.approx(plain.item(), abs=1e-6)


def test_the_bank_widens_only_the_choice_of_an_image_for_a_text():
    text, images, bank = vectors(3, 8), vectors(3, 9), vectors(6, 10)
    own = torch.arange(3)
    plain = 10 * F.normalize(text, dim=-1) @ F.normalize(torch.cat([images, bank]), dim=-1).T
    expected = (F.cross_entropy(plain, own) + F.cross_entropy(plain[:, :3].T, own)) / 2
    loss, _ = ClipContrastiveLoss(10.0)(text, images, torch.arange(3), bank, torch.arange(10, 16))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_single_text_with_a_bank_has_only_the_first_direction():
    text, image, bank = vectors(1, 11), vectors(1, 12), vectors(4, 13)
    plain = 10 * F.normalize(text, dim=-1) @ F.normalize(torch.cat([image, bank]), dim=-1).T
    loss, _ = ClipContrastiveLoss(10.0)(text, image, torch.tensor([0]), bank, torch.arange(1, 5))
    assert loss.item() == pytest.approx(F.cross_entropy(plain, torch.tensor([0])).item(), abs=1e-6)


def test_fewer_than_two_candidates_is_an_error_that_names_the_remedy():
    with pytest.raises(ValueError, match=r"two candidates.*train\.batch_size.*loss\.clip_bank"):
        ClipContrastiveLoss(10.0)(vectors(1, 1), vectors(1, 2), torch.tensor([0]))


def test_l_clip_depends_on_directions_not_on_lengths():
    text, images, groups = vectors(4, 14), vectors(4, 15), torch.arange(4)
    loss, _ = ClipContrastiveLoss(10.0)(text, images, groups)
    scaled, _ = ClipContrastiveLoss(10.0)(text * 5, images * 0.1, groups)
    assert scaled.item() == pytest.approx(loss.item(), abs=1e-5)


def test_l_text_equals_the_loss_of_transformers(small_backbones):
    t5 = small_backbones.decoder.t5
    adapted = torch.randn(3, 9, t5.config.d_model, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, 160, (3, 7), generator=torch.Generator().manual_seed(1))
    labels[1, 4:] = -100
    with torch.no_grad():
        expected = t5(inputs_embeds=adapted, labels=labels).loss
        loss = TextConversionLoss()(small_backbones.decoder.logits(adapted, labels), labels)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_l_mse_is_the_mean_square_over_all_elements():
    prediction, target = torch.zeros(2, 1, 2, 2), torch.tensor([1.0, 2.0, 3.0, 4.0] * 2).view(2, 1, 2, 2)
    assert DiffusionNoiseLoss()(prediction, target).item() == pytest.approx(30 / 4)


def test_feature_matching_is_one_minus_the_mean_cosine():
    loss = FeatureMatchingLoss()(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    assert loss.item() == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2, abs=1e-6)
