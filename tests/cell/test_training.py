"""Training through Lightning on the embedded backbones: resumable bit for bit, paired across arms, nothing frozen on disk."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal

import pytest
import torch

from ablations.cell.loading.data import build_data
from ablations.cell.loading.module import build_module
from ablations.cell.training.fit import CURVES, read_curves
from ablations.cell.training.train import finish_training, leave_seen_words
from ablations.cell.work import Work
from ablations.config import parse
from ablations.results import seen_words
from ablations.results.checkpoints import FINAL, LAST
from ablations.results.run_folder import RunFolder
from ablations.runtime.stopping import Preempted, StopRequest

SMALL = {
    **{"data.num_train": 40, "data.num_validation": 8, "train.batch_size": 6, "loss.clip_bank": 4},
    **{"train.log_every": 1, "trainer.progress": "none"},
}


def train_arm(folder, backbones, *arguments: str, stop_after=None, steps: int = 9, stop=None, signal_in_batch=None):
    """Train a small arm in `folder`; returns (module, run folder).

    With `stop_after`, a stop is requested in that step; with `signal_in_batch`, SIGTERM is sent in that micro-batch.
    """
    settings = {**SMALL, "train.max_steps": steps, "output_dir": folder, **dict(argument.split("=", 1) for argument in arguments)}
    config = parse([f"{name}={value}" for name, value in settings.items()])
    work = Work.unheard(config, stop or StopRequest())
    module = build_module(config, backbones)
    data = build_data(config, module, work.console.say)
    if stop_after is not None or signal_in_batch is not None:
        step = module.training_step

        micro_batches = itertools.count()

        def counted(batch, batch_index=0):
            if stop_after is not None:
                work.stop.requested = module.global_step + 1 >= stop_after
            if next(micro_batches) == signal_in_batch:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batch, batch_index)

        module.training_step = counted
    data.setup("fit")
    finish_training(work, module, data)
    return module, work.folder


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoints / FINAL, weights_only=True)["state_dict"]


def assert_equal_weights(one: RunFolder, other: RunFolder) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_weights_and_losses_bit_for_bit(small_backbones, tmp_path):
    _, one = train_arm(tmp_path / "one", small_backbones)
    _, two = train_arm(tmp_path / "two", small_backbones)
    assert_equal_weights(one, two)
    assert read_curves(one.training_path / "metrics.csv") == read_curves(two.training_path / "metrics.csv")
    assert len(read_curves(one.training_path / "metrics.csv")) == 9


def test_looking_at_held_out_losses_changes_no_bit_of_a_training_and_is_the_same_at_equal_weights(small_backbones, tmp_path):
    _, unseen = train_arm(tmp_path / "unseen", small_backbones, "train.validate_every=0", steps=4)
    _, watched = train_arm(tmp_path / "watched", small_backbones, "train.validate_every=2", steps=4)
    assert_equal_weights(unseen, watched)
    rows, seen = (read_curves(run.training_path / CURVES) for run in (unseen, watched))
    assert [{name: value for name, value in row.items() if not name.startswith("val/")} for row in seen] == rows
    assert [row["step"] for row in seen if "val/l_mse" in row] == [2, 4]
    assert {name for name in seen[1] if name.startswith("val/")} == {"val/l_mse", "val/l_text", "val/l_clip", "val/loss"}


def test_a_reading_that_starts_from_pictures_resumes_bit_for_bit_and_does_not_start_again(small_backbones, tmp_path, monkeypatch):
    words = ("afe.reading=position_values", "afe.weights=frozen", "use_mse=false")
    module, whole = train_arm(tmp_path / "whole", small_backbones, *words, steps=4)
    assert module.afe.logits_spread.shape == (4, 16)
    with pytest.raises(Preempted):
        train_arm(tmp_path / "part", small_backbones, *words, steps=4, stop_after=2)
    monkeypatch.setattr("lightning_modules.prompt_refiner.PromptRefinerModule.start_afe", None)
    _, resumed = train_arm(tmp_path / "part", small_backbones, *words, steps=4)
    assert_equal_weights(whole, resumed)


def test_another_seed_gives_other_weights(small_backbones, tmp_path):
    _, one = train_arm(tmp_path, small_backbones, steps=2)
    _, two = train_arm(tmp_path, small_backbones, "seed=1", steps=2)
    name = "adapter.layers.0.weight"
    assert not torch.equal(weights_of(one)[name], weights_of(two)[name])


# 40 records in batches of 6: an epoch has 6 batches. Step 4 is mid-epoch, step 6 the epoch's last, 7 the next one's first.
@pytest.mark.parametrize(("stop_after", "workers", "accumulate"), [(4, 0, 1), (6, 0, 1), (7, 2, 1), (4, 2, 1), (2, 0, 2), (9, 0, 1)])
def test_a_stopped_training_ends_as_an_undisturbed_one_bit_for_bit(small_backbones, tmp_path, stop_after, workers, accumulate):
    options = (f"train.accumulate={accumulate}", f"data.num_workers={workers}")
    _, whole = train_arm(tmp_path / "whole", small_backbones, f"train.accumulate={accumulate}")
    with pytest.raises(Preempted, match=f"training, step {stop_after}"):
        train_arm(tmp_path / "parts", small_backbones, *options, stop_after=stop_after)
    _, parts = train_arm(tmp_path / "parts", small_backbones, *options)
    assert_equal_weights(whole, parts)
    assert read_curves(whole.training_path / "metrics.csv") == read_curves(parts.training_path / "metrics.csv")
    assert not (parts.checkpoints / LAST).exists()


def test_a_training_stopped_twice_in_one_epoch_ends_as_an_undisturbed_one(small_backbones, tmp_path):
    _, whole = train_arm(tmp_path / "whole", small_backbones, steps=5)
    for stop_after in (2, 4):
        with pytest.raises(Preempted):
            train_arm(tmp_path / "parts", small_backbones, stop_after=stop_after, steps=5)
    _, parts = train_arm(tmp_path / "parts", small_backbones, steps=5)
    assert_equal_weights(whole, parts)


def test_cached_and_uncached_training_give_the_same_weights_bit_for_bit_at_equal_encoding_batch(small_backbones, tmp_path):
    options = ("loss.clip_bank=0", "train.batch_size=8", "data.encode_batch_size=8")
    _, cached = train_arm(tmp_path / "cached", small_backbones, *options, steps=4)
    _, uncached = train_arm(tmp_path / "uncached", small_backbones, *options, "data.cache=false", steps=4)
    assert_equal_weights(cached, uncached)


def test_cached_and_uncached_training_agree_to_rounding_at_another_encoding_batch(small_backbones, tmp_path):
    """The first step's terms, before Adam turns the rounding of gradients near zero into whole steps."""
    options = ("loss.clip_bank=0", "train.batch_size=8", "train.log_every=1")
    _, cached = train_arm(tmp_path / "cached", small_backbones, *options, steps=1)
    _, uncached = train_arm(tmp_path / "uncached", small_backbones, *options, "data.cache=false", steps=1)
    first, second = (read_curves(run.training_path / CURVES)[0] for run in (cached, uncached))
    assert {"train/l_mse", "train/l_text", "train/l_clip"} <= first.keys() == second.keys()
    assert all(first[name] == pytest.approx(second[name], rel=1e-5, abs=1e-5) for name in first)


def test_a_checkpoint_holds_trained_parameters_only(small_backbones, tmp_path):
    module, run = train_arm(tmp_path, small_backbones, steps=1)
    content = torch.load(run.checkpoints / FINAL, weights_only=True)
    assert {name.split(".")[0] for name in content["state_dict"]} == {"text_encoder", "adapter", "afe"}
    trained = sum(p.numel() for p in module.parameters())
    assert sum(value.numel() for value in content["state_dict"].values()) == trained
    assert "optimizer_states" not in content  # two thirds of the file, which nothing reads again


def test_a_finished_training_is_taken_by_an_arm_that_differs_in_eval_keys_only(small_backbones, tmp_path):
    module, run = train_arm(tmp_path, small_backbones, steps=2)
    written = (run.checkpoints / FINAL).stat().st_mtime_ns
    other, again = train_arm(tmp_path, small_backbones, "prompt_len=12", steps=2)
    assert again.arm != run.arm and again.training_path == run.training_path
    assert (run.checkpoints / FINAL).stat().st_mtime_ns == written
    assert torch.equal(other.adapter.layers[0].weight, module.adapter.layers[0].weight)


def test_a_training_made_from_other_data_is_not_taken(small_backbones, tmp_path):
    _, run = train_arm(tmp_path, small_backbones, steps=2)
    content = torch.load(run.checkpoints / FINAL, weights_only=True)
    content["made_from"]["data"] = "0" * 16
    content["state_dict"]["adapter.layers.0.weight"].zero_()
    torch.save(content, run.checkpoints / FINAL)
    module, _ = train_arm(tmp_path, small_backbones, steps=2)
    assert module.adapter.layers[0].weight.abs().sum() > 0


def test_a_signal_within_an_accumulated_step_waits_for_its_end_and_resumes_bit_for_bit(small_backbones, tmp_path):
    options = ("train.accumulate=2",)
    _, whole = train_arm(tmp_path / "whole", small_backbones, *options, steps=4)
    stop = StopRequest().install()
    try:
        with pytest.raises(Preempted, match="training, step 2"):
            train_arm(tmp_path / "parts", small_backbones, *options, steps=4, stop=stop, signal_in_batch=2)
    finally:
        stop.restore()
    _, parts = train_arm(tmp_path / "parts", small_backbones, *options, steps=4)
    assert_equal_weights(whole, parts)


def test_a_training_says_which_words_and_pieces_its_texts_have_and_says_it_anew_for_other_data(small_backbones, tmp_path):
    def leave(*arguments: str):
        config = parse([f"output_dir={tmp_path}", *(f"{name}={value}" for name, value in SMALL.items()), *arguments])
        work, module = Work.unheard(config, StopRequest()), build_module(config, small_backbones)
        data = build_data(config, module, work.console.say)
        leave_seen_words(work, module, data)
        return work.folder.training_path, data

    folder, data = leave()
    seen = seen_words.read(folder)
    assert (seen.data, seen.num_fine) == (data.digest, len({record.fine_prompt for record in data.train_records}))
    texts = [text for record in data.train_records for text in (record.fine_prompt, *record.coarse_prompts)]
    assert all(seen.unknown(text) == () for text in texts) and seen.unknown("a zebra in Snow, 8k") == ("zebra",)
    fine_ids = small_backbones.tokenize_t5([record.fine_prompt for record in data.train_records])
    pieces = {piece for ids in fine_ids for piece in small_backbones.decoder.tokenizer.convert_ids_to_tokens(ids[:-1])}
    assert seen.pieces == pieces
    written = (folder / seen_words.FILE).read_bytes()
    seen_words.write(folder, dataclasses.replace(seen, data="other", words=frozenset()))
    leave()
    assert (folder / seen_words.FILE).read_bytes() == written


def test_epochs_limit_a_training_too(small_backbones, tmp_path):
    _, run = train_arm(tmp_path, small_backbones, "train.max_epochs=1")
    assert torch.load(run.checkpoints / FINAL, weights_only=True)["global_step"] == 6
