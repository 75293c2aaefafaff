"""Claims about CFPDataModule: batches are functions of their number, and everything in them is what it says."""

import csv
import os
import pickle
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from datamodules.cfp import CFPDataModule
from datamodules.images import load_pixels, to_unit_range
from datamodules.records import text_group
from datamodules.settings import DataSettings
from datamodules.sharing import Sharing

SIZE = 32


def count_tokens(text):
    return len(re.findall(r"\w+|[^\w\s]", text))


def tokenize_clip(texts):
    tokens = torch.zeros(len(texts), 77, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        values = [49406, *(10 + sum(map(ord, word)) % 1000 for word in text.split()), 49407][:77]
        row[: len(values)] = torch.tensor(values)
    return tokens


def tokenize_t5(texts):
    return [[*(10 + sum(map(ord, word)) % 1000 for word in text.split()), 1] for text in texts]


class Encoder:
    """A frozen convolution under the name of a real encoder; counts the pictures that it saw."""

    def __init__(self, name):
        self.name, self.digest, self.seen = name, f"{name}-weights", 0
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        generator = torch.Generator().manual_seed(5)
        for parameter in self.conv.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 14

    def shapes(self):
        latents = {"latent_mean": (2, 4, 4), "latent_logvar": (2, 4, 4)}
        return latents if self.name == "latents" else {"image_vectors": (16, 4), "image_pooled": (4,)}

    def encode(self, images_BCHW):
        self.seen += len(images_BCHW)
        with torch.no_grad():
            features = self.conv(images_BCHW)
        if self.name == "latents":
            return {"latent_mean": features[:, :2], "latent_logvar": features[:, 2:]}
        return {"image_vectors": features.flatten(2).transpose(1, 2), "image_pooled": features.mean((2, 3))}


def make(tmp_path, *names, seed=0, say=lambda line: None, **options):
    tokenizers = SimpleNamespace(tokenize=tokenize_clip, tokenize_t5=tokenize_t5, t5_pad_id=0, count_tokens=count_tokens)
    base = DataSettings("tiny", SIZE, 4, num_train=22, num_validation=6, clean_captions=False, cache_dir=tmp_path / "cache")
    return CFPDataModule(replace(base, **options), seed, tokenizers, [Encoder(name) for name in names], say)


def take(data, count, start=0):
    data.start_batch = start
    return list(islice(data.train_dataloader(), count))


def assert_equal_batches(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]) if isinstance(value, torch.Tensor) else value == right[key], key


def test_batch_has_the_keys_shapes_and_types_of_its_contract(tmp_path):
    batch = take(make(tmp_path, "latents", "image_vectors", clip_bank=8), 1)[0]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    target_len = batch["target_tokens_BT"].shape[1]
    long, real = torch.int64, torch.float32
    assert shapes == {
        "ids_B": ((4,), long), "draw_seeds": ((4, 2), long), "text_tokens_BS": ((4, 77), long),
        "target_tokens_BT": ((4, target_len), long), "target_mask_BT": ((4, target_len), torch.bool),
        "coarse_groups_B": ((4,), long), "subject_groups_B": ((4,), long),
        "latent_mean_BCHW": ((4, 2, 4, 4), real), "latent_logvar_BCHW": ((4, 2, 4, 4), real),
        "image_vectors_BKE": ((4, 16, 4), real), "image_pooled_BE": ((4, 4), real),
        "bank_vectors_NKE": ((8, 16, 4), real), "bank_pooled_NE": ((8, 4), real),
        "bank_groups_N": ((8,), long), "bank_subject_groups_N": ((8,), long),
    }  # fmt: skip
    assert len(batch["coarse_prompts"]) == len(batch["fine_prompts"]) == 4


def test_batch_content_is_that_of_its_records(tmp_path):
    data = make(tmp_path)
    records = {record.id: record for record in data.records}
    for batch in take(data, 3):
        for row, record_id in enumerate(batch["ids_B"].tolist()):
            record, coarse = records[record_id], batch["coarse_prompts"][row]
            assert coarse in record.coarse_prompts and batch["fine_prompts"][row] == record.fine_prompt
            assert torch.equal(batch["text_tokens_BS"][row], tokenize_clip([coarse])[0])
            assert batch["target_tokens_BT"][row][batch["target_mask_BT"][row]].tolist() == tokenize_t5([record.fine_prompt])[0]
            assert batch["coarse_groups_B"][row] == text_group(coarse)
            assert batch["subject_groups_B"][row] == record.subject_group >= 0
        assert (batch["target_tokens_BT"][~batch["target_mask_BT"]] == 0).all() and batch["target_mask_BT"].any(0).all()


def test_epoch_visits_each_record_at_most_once_and_epochs_differ(tmp_path):
    data = make(tmp_path)
    assert data.batches_per_epoch == 5
    batches = take(data, 10)
    epochs = [torch.cat([batch["ids_B"] for batch in batches[k : k + 5]]).tolist() for k in (0, 5)]
    assert [len(set(ids)) for ids in epochs] == [20, 20] and epochs[0] != epochs[1]
    assert [batch["draw_seeds"][0, 0].item() for batch in batches] == [0] * 5 + [1] * 5
    assert all(torch.equal(batch["draw_seeds"][:, 1], batch["ids_B"]) for batch in batches)


def test_coarse_lengths_and_flips_are_drawn_evenly_and_anew_in_each_epoch(tmp_path):
    data = make(tmp_path, num_train=400, num_validation=0, batch_size=400)
    position = {record.id: record for record in data.records}
    first, second = take(data, 2)
    lengths = [position[i].coarse_prompts.index(text) for i, text in zip(first["ids_B"].tolist(), first["coarse_prompts"], strict=True)]
    assert all(100 < lengths.count(length) < 170 for length in range(3))
    again = dict(zip(second["ids_B"].tolist(), second["coarse_prompts"], strict=True))
    changed = np.mean([again[i] != text for i, text in zip(first["ids_B"].tolist(), first["coarse_prompts"], strict=True)])
    assert 0.55 < changed < 0.78


@pytest.mark.parametrize("cache", [True, False])
def test_workers_do_not_change_batches(tmp_path, cache):
    bank = 6 if cache else 0
    alone, helped = (make(tmp_path, "image_vectors", cache=cache, clip_bank=bank, num_workers=workers) for workers in (0, 2))
    list(map(assert_equal_batches, take(alone, 7), take(helped, 7)))


def test_training_from_batch_k_continues_the_same_sequence(tmp_path):
    whole = take(make(tmp_path, "latents", "image_vectors", clip_bank=6), 12)
    for start in (1, 5, 8):  # mid-epoch, at an epoch's start, mid-epoch of the second
        rest = take(make(tmp_path, "latents", "image_vectors", clip_bank=6), 12 - start, start)
        list(map(assert_equal_batches, whole[start:], rest))


def test_start_follows_from_the_trainers_steps_and_accumulation(tmp_path):
    data = make(tmp_path)
    data.trainer = SimpleNamespace(global_step=3, accumulate_grad_batches=2, world_size=1, global_rank=0)
    assert data.start_batch == 6
    assert_equal_batches(next(iter(data.train_dataloader())), take(make(tmp_path), 1, 6)[0])


class IdRecorder(LightningModule):
    """Trains one number and remembers which records it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_index):
        self.seen.append(batch["ids_B"].tolist())
        return self.weight * batch["ids_B"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_resumed_lightning_run_sees_what_an_uninterrupted_one_sees(tmp_path):
    def fit(max_steps, checkpoint=None):
        module = IdRecorder()
        trainer = Trainer(
            max_steps=max_steps, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=make(tmp_path), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module.seen

    whole = fit(9)
    parts = [fit(2), fit(4, tmp_path / "last.ckpt"), fit(9, tmp_path / "last.ckpt")]  # stops twice in the first epoch of 5 batches
    assert [len(part) for part in parts] == [4, 4, 10]
    assert [ids for part in parts for ids in part] == whole


def test_ranks_share_out_the_global_batch_and_draw_one_bank(tmp_path):
    whole = take(make(tmp_path, "image_vectors", clip_bank=6), 1, 7)[0]
    shares = []
    for rank in (0, 1):
        data = make(tmp_path, "image_vectors", clip_bank=6)
        data.rank, data.sharing = rank, Sharing(2)
        shares.append(take(data, 1, 7)[0])
    assert torch.equal(torch.cat([share["ids_B"] for share in shares]), whole["ids_B"])
    assert torch.equal(torch.cat([share["image_vectors_BKE"] for share in shares]), whole["image_vectors_BKE"])
    assert all(torch.equal(share["bank_vectors_NKE"], whole["bank_vectors_NKE"]) for share in shares)
    data.sharing = Sharing(3)
    with pytest.raises(ValueError, match=r"train\.batch_size=4 cannot be shared by 3 devices"):
        data.train_dataloader()


def test_arms_that_need_other_features_see_the_same_records_and_prompts(tmp_path):
    for plain, full in zip(take(make(tmp_path), 6), take(make(tmp_path, "latents", "image_vectors"), 6), strict=True):
        assert_equal_batches(plain, {key: full[key] for key in plain})


def test_other_seeds_give_another_order_and_the_same_records(tmp_path):
    left, right = make(tmp_path), make(tmp_path, seed=1)
    assert left.records == right.records and left.digest == right.digest
    assert not torch.equal(take(left, 1)[0]["ids_B"], take(right, 1)[0]["ids_B"])


def test_no_global_random_state_is_read(tmp_path):
    data = make(tmp_path, "image_vectors", clip_bank=4)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    take(data, 3)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert (numpy_before[1] == np.random.get_state()[1]).all() and numpy_before[2] == np.random.get_state()[2]


def test_cached_features_are_those_of_the_pictures_in_an_uncached_batch(tmp_path):
    encoder = Encoder("latents")
    cached, uncached = (take(make(tmp_path, "latents", cache=cache, encode_batch_size=4), 6) for cache in (True, False))
    for left, right in zip(cached, uncached, strict=True):
        assert "images_BCHW" not in left and "latent_mean_BCHW" not in right
        assert (left["latent_mean_BCHW"] - encoder.encode(right["images_BCHW"])["latent_mean"]).abs().max() <= 1e-5
        assert torch.equal(left["ids_B"], right["ids_B"])


def test_at_equal_encoding_batch_cached_features_are_equal_bit_for_bit(tmp_path):
    data = make(tmp_path, "latents", num_train=8, num_validation=0, batch_size=8, encode_batch_size=8, random_flip=False)
    batch = take(data, 1)[0]
    images = to_unit_range(np.stack([load_pixels(record, SIZE) for record in data.records]))
    assert torch.equal(batch["latent_mean_BCHW"], Encoder("latents").encode(images)["latent_mean"][batch["ids_B"]])


def test_flips_mirror_about_half_of_the_pictures(tmp_path):
    data = make(tmp_path, "latents", cache=False, num_train=60, num_validation=0, batch_size=60)
    batch = take(data, 1)[0]
    plain = to_unit_range(np.stack([load_pixels(data.records[i], SIZE) for i in batch["ids_B"].tolist()]))
    mirrored = [torch.equal(image, other.flip(-1)) for image, other in zip(batch["images_BCHW"], plain, strict=True)]
    assert all(flip or torch.equal(image, other) for flip, image, other in zip(mirrored, batch["images_BCHW"], plain, strict=True))
    assert 18 < sum(mirrored) < 42


def test_features_that_are_not_needed_are_not_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.batches.load_pixels", lambda *_: pytest.fail("a picture was made"))
    assert not any("image" in key or "latent" in key or "bank" in key for key in take(make(tmp_path, clip_bank=8), 1)[0])


def test_second_module_uses_the_cache(tmp_path):
    take(make(tmp_path, "latents"), 1)
    take(data := make(tmp_path, "latents", seed=3), 1)
    assert data.encoders[0].seen == 0


def test_bank_is_of_other_records_without_repeats(tmp_path):
    data = make(tmp_path, "image_vectors", clip_bank=18, random_flip=False)
    vectors = data._assemble()._caches[0].rows(np.zeros(28, dtype=np.int64), np.arange(28))["image_pooled"]
    for batch in take(data, 6):
        bank = [int((vectors == row).all(1).nonzero()[0]) for row in batch["bank_pooled_NE"]]
        assert sorted([*bank, *batch["ids_B"].tolist()]) == list(range(22))
        assert batch["bank_subject_groups_N"].tolist() == [data.records[i].subject_group for i in bank]
        assert all(group in map(text_group, data.records[i].coarse_prompts) for i, group in zip(bank, batch["bank_groups_N"], strict=True))


def test_half_of_a_hard_bank_shares_its_subject_with_the_batch(tmp_path):
    options = {"clip_bank": 12, "num_train": 300, "batch_size": 2}
    shares = {}
    for hard in (False, True):
        batches = take(make(tmp_path, "image_vectors", hard_negatives=hard, **options), 10)
        shares[hard] = np.mean([torch.isin(b["bank_subject_groups_N"], b["subject_groups_B"]).float().mean() for b in batches])
    assert shares[False] < 0.35 and shares[True] >= 0.5


def test_long_targets_are_cut_and_lose_their_end_token(tmp_path):
    batch = take(make(tmp_path, target_len=5), 1)[0]
    assert batch["target_tokens_BT"].shape == (4, 5) and not (batch["target_tokens_BT"] == 1).any()


def test_validation_is_the_same_for_every_seed_and_leaves_no_record_alone(tmp_path):
    left, right = (make(tmp_path, "latents", seed=seed, batch_size=5).val_dataloader() for seed in (0, 1))
    assert [len(batch["ids_B"]) for batch in left] == [3, 3]
    list(map(assert_equal_batches, left, right))
    assert make(tmp_path, num_validation=0).val_dataloader() == []


def test_dataset_can_be_sent_to_another_process(tmp_path):
    loader = make(tmp_path, "latents").train_dataloader()
    assert_equal_batches(pickle.loads(pickle.dumps(loader.dataset))[3], loader.dataset[3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 40}, r"train\.batch_size=40 needs as many training records; tiny gives 22"),
        ({"clip_bank": 20}, r"loss\.clip_bank=20 and train\.batch_size=4 need 24 training records; tiny gives 22"),
        ({"clip_bank": 2, "cache": False}, r"loss\.clip_bank=2 is drawn from the feature cache: set data\.cache=true"),
        ({"cache_dir": None}, r"set data\.cache_dir"),
        ({"clip_bank": 4, "hard_negatives": True, "source": "t.csv"}, r"hard_negatives=true needs subject labels"),
        ({"seed": -1}, r"seed=-1 must be at least 0"),
        ({"num_train": None}, r"data\.num_train: the tiny world has no end"),
        ({"num_train": 50_000}, r"train split gives 0 to 40000 records, not 50000"),
    ],
)
def test_impossible_settings_are_refused_on_one_line(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make(tmp_path, "image_vectors", **options).train_dataloader()
    assert "\n" not in str(error.value)


def write_table(folder, rows=12, pictures=True):
    (folder / "eval").mkdir(parents=True)
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "step", "seed", "height", "width", "cfg", "sampler", "image_name", "image_path"])
        for row in range(rows):
            prompt = f"Picture {row // 2}!" if row % 2 else f"picture {row // 2}"  # each prompt twice, spelt differently
            writer.writerow([prompt, 50, row, 40, 48, 7.5, "Euler a", f"{row}.png", f"eval/{row}.png"])
            if pictures:
                Image.fromarray(np.full((40, 48, 3), 20 * row, dtype=np.uint8)).save(folder / "eval" / f"{row}.png")
    return folder / "table.csv"


def test_table_with_pictures_trains_and_lists_what_it_left_out(tmp_path):
    path = write_table(tmp_path)
    (tmp_path / "eval" / "3.png").unlink()
    (tmp_path / "eval" / "8.png").write_bytes(b"\x89PNG")
    options = {"source": path, "num_train": None, "num_validation": 2, "manifest_path": tmp_path / "manifest.json"}
    data = make(tmp_path, "latents", cache=False, max_bad_fraction=0.2, **options)
    assert {(bad.id, bad.reason) for bad in data.manifest.bad} == {(3, "missing_image"), (8, "corrupt_image")}
    batch = take(data, 1)[0]
    for record_id, image in zip(batch["ids_B"].tolist(), batch["images_BCHW"], strict=True):
        assert image.shape == (3, SIZE, SIZE) and torch.all(image == torch.tensor(20.0 * record_id).div(127.5).sub(1))
    assert make(tmp_path, max_bad_fraction=0.2, **options).records == data.records
    with pytest.raises(ValueError, match=r"2 of 12 records .*data\.max_bad_fraction=0\.1.*manifest\.json"):
        make(tmp_path, "latents", max_bad_fraction=0.1, **options).setup()


def test_held_out_prompts_are_never_trained_on_in_any_spelling(tmp_path):
    path = write_table(tmp_path)
    data = make(tmp_path, source=path, num_train=None, num_validation=4)
    held_out = data.eval_prompts("test", 2)
    trained = {record.fine_prompt.lower().strip("!") for record in data.train_records}
    assert len(data.train_records) == 8 and len(data.validation_records) == 4
    assert not trained & {prompt.fine_prompt.lower().strip("!") for prompt in held_out}
    assert held_out == make(tmp_path, source=path, seed=9, num_train=6, num_validation=4).eval_prompts("validation", 2)
    assert data.eval_prompts("test", 1) == held_out[:1]
    with pytest.raises(ValueError, match=r"3 evaluation prompts asked for, .* has 2 distinct fine prompts.*data\.num_validation"):
        data.eval_prompts("test", 3)


def test_table_without_any_picture_is_one_clear_error_where_pictures_are_needed(tmp_path):
    path = write_table(tmp_path, pictures=False)
    assert len(make(tmp_path, source=path, num_train=None).train_records) == 6
    with pytest.raises(FileNotFoundError, match=r"none of the images of .*table\.csv is there.*data\.images"):
        make(tmp_path, "latents", source=path, num_train=None).setup()


def test_changed_picture_changes_the_digest_and_the_cache(tmp_path):
    path = write_table(tmp_path)
    options = {"source": path, "num_train": None, "num_validation": 2}
    first = make(tmp_path, "latents", **options)
    take(first, 1)
    Image.new("RGB", (48, 40), (1, 2, 3)).save(tmp_path / "eval" / "0.png")
    second = make(tmp_path, "latents", **options)
    take(second, 1)
    assert first.digest != second.digest and second.encoders[0].seen == 2 * 12


def test_tiny_worlds_evaluation_prompts_are_of_their_split_and_length(tmp_path):
    data = make(tmp_path)
    short, long = (data.eval_prompts("test", 20, length) for length in ("short", "long"))
    assert [prompt.prompt_id for prompt in short] == list(range(20))
    assert [prompt.fine_prompt for prompt in short] == [prompt.fine_prompt for prompt in long]
    assert max(count_tokens(prompt.coarse_prompt) for prompt in short) <= 5
    assert all(11 <= count_tokens(prompt.coarse_prompt) <= 15 or prompt.coarse_prompt == prompt.fine_prompt for prompt in long)
    assert not {prompt.fine_prompt for prompt in short} & {record.fine_prompt for record in data.records}
    assert short[0].scene.subject in short[0].coarse_prompt


def test_prefix_share_is_measured_and_said(tmp_path):
    lines = []
    data = make(tmp_path, say=lines.append)
    data.setup("test")
    assert data.prefix_share == 1.0
    assert lines[0] == "data: 28 of 28 records of tiny (tiny world)"
    assert lines[1] == "data: 100.0% of the coarse prompts are prefixes of their fine prompt"


def test_real_table_trains_without_its_pictures(tmp_path):
    if not (path := Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")) / "cfp" / "eval_images.csv").is_file():
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with cfp/eval_images.csv")
    data = make(tmp_path, source=path, num_train=None, num_validation=500, clean_captions=True)
    assert (len(data.train_records), len(data.validation_records), data.batches_per_epoch) == (7692, 500, 1923)
    assert len(take(data, 1, 5000)[0]["ids_B"]) == 4
