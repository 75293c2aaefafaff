"""What a cell draws is what a table reads of its arm, whatever its other keys; and a forecast counts exactly that."""

from __future__ import annotations

import pytest

from ablations.config import arm_name, parse, to_flat_dict
from ablations.config.presets import named_ablations
from ablations.reporting.layouts import LOSSES, _fixed
from ablations.results.comparisons import COMPARISONS, Reads, stands_in, what_is_read
from ablations.results.conditions import all_conditions, controls
from ablations.sweeping.forecast import picture_groups

ONE, EVERY = Reads(pictures=1, in_grid=1), Reads(pictures=3, in_grid=3)


def read(*arguments: str) -> dict[str, Reads]:
    return what_is_read(parse(list(arguments)))


def comparisons(*arguments: str) -> list[str]:
    return [comparison.id for comparison in stands_in(to_flat_dict(parse(list(arguments))))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("full", ["losses", "afe", "prompt_length", "conditions"]),
        ("placebo", ["losses", "afe"]),
        *((name, ["losses"]) for name in ("without_mse", "without_clip", "without_mse_and_clip", "without_text", "with_feature")),
        *((name, ["afe"]) for name in ("without_afe", "afe_uniform", "afe_frozen")),
        *((f"length_{length}", ["losses", "prompt_length"]) for length in (2, 4, 8, 10, 12, 16, 20)),
    ],
)
def test_an_arm_stands_in_the_comparisons_that_its_settings_fit(name, expected):
    assert comparisons(f"ablation={name}") == expected
    assert {*named_ablations()} >= {name}


def test_a_loss_arm_is_drawn_once_for_quality_and_written_for_texts():
    assert read("ablation=without_mse") == {
        "coarse": ONE,
        "fine": Reads(texts=1),
        # The diversity grid's prompts keep all candidates.
        "refined": Reads(pictures=1, texts=1, in_grid=3),
        "plug_in": ONE,
        "rewrite": Reads(texts=1),
    }


def test_an_afe_arm_is_drawn_with_all_candidates_at_one_noise():
    for name in ("without_afe", "afe_uniform", "afe_frozen", "placebo"):
        found = read(f"ablation={name}")
        assert found["refined_shared_noise"] == EVERY
        assert found["refined"] == Reads(pictures=1, texts=3, in_grid=3)


def test_a_length_is_read_beside_its_ceiling_and_beside_prompts_that_may_end_earlier():
    found = read("ablation=length_12")
    assert found["fine_prefix"] == Reads(pictures=1, texts=1, in_grid=1)
    assert found["refined_may_stop"] == Reads(texts=1)
    assert "refined_shared_noise" not in found


def test_the_full_arm_alone_has_the_controls_and_the_positive_control():
    own = {*controls(), "fitting_styles"}
    assert own <= set(read()) and read()["coarse"] == read()["fitting_styles"] == EVERY
    for name in named_ablations():
        assert not own & set(read(f"ablation={name}")) or name == "full"
    # Other weights, data and readings make another full arm, not another kind of arm.
    assert set(read("loss.clip_weight=0.3", "train.max_steps=7", "eval.rounds=2")) == set(read())


def test_an_arm_of_no_comparison_is_read_by_all():
    assert comparisons("use_mse=false", "use_afe=false") == [comparison.id for comparison in COMPARISONS]


def test_what_is_asked_for_by_its_key_is_drawn_with_all_candidates_or_nowhere():
    found = read("ablation=without_mse", "eval.controls=true", "eval.plug_in=false", "eval.rewrite_too=true")
    assert {name for name, reads in found.items() if reads == EVERY} == set(controls())
    assert "plug_in" not in found and found["rewrite"] == Reads(pictures=3, texts=1, in_grid=3)
    assert not set(controls()) & set(read("eval.controls=false"))
    everything = read("ablation=without_mse", "eval.draw=all")
    assert set(everything) == set(all_conditions()) and all(reads.pictures == 3 for reads in everything.values())


def test_keys_that_only_add_pictures_set_arms_apart_in_folders_but_not_in_tables():
    one, other = (parse(arguments) for arguments in ([], ["eval.draw=all", "eval.controls=true", "eval.text_prompts=0"]))
    assert arm_name(one) != arm_name(other)
    assert _fixed(LOSSES, to_flat_dict(one)) == _fixed(LOSSES, to_flat_dict(other))


def test_never_more_candidates_are_read_than_there_are():
    assert max(reads.pictures for reads in read("eval.num_candidates=1").values()) == 1
    assert "refined_shared_noise" not in read("eval.num_candidates=1")


def test_a_whole_sweep_draws_a_quarter_of_what_every_condition_of_every_arm_would_be():
    """14 arms at one seed and 64 prompts, with the conditions that there were when all of them were drawn."""
    then = ("coarse", "fine", "refined", "plug_in", "rewrite", "control_step0", "control_t5_direct", "control_shuffled")
    names = [name for name in named_ablations() if name not in ("placebo", "afe_uniform", "afe_frozen")]

    def drawn(*arguments: str) -> dict[tuple, int]:
        configs = [parse([f"ablation={name}", "eval.num_prompts=64", *arguments]) for name in names]
        return {group: count for config in configs for group, count in picture_groups(config).items()}

    everything = {group: count for group, count in drawn("eval.draw=all").items() if set(group[8:9]) & set(then)}
    assert sum(everything.values()) == 13_312
    assert sum(drawn().values()) == 3_164
