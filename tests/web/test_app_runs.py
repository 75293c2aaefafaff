"""The page's runs tab without a browser: which runs it shows, their grids side by side, and whose files it gives away."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ablations.runtime.errors import UserError
from ablations.web.run_browser import NoSuchPicture, RunBrowser
from helpers import synthetic_runs


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("browsed")
    for settings in ({}, {"use_afe": False}):
        for seed in (0, 1):
            synthetic_runs.write_cell(made, settings, seed, synthetic_runs.known_effect, num_prompts=6)
    synthetic_runs.write_cell(made, {"prompt_len": 2}, 0, num_prompts=6, digests={"weights": "f" * 16})
    synthetic_runs.write_cell(made, {"prompt_len": 10}, 0, num_prompts=2, finish=False, pictures=False).fail(synthetic_runs.FAILURE)
    synthetic_runs.write_cell(made, {"prompt_len": 12}, 0, num_prompts=2, finish=False, pictures=False)
    torn = synthetic_runs.write_cell(made, {"prompt_len": 14}, 0, num_prompts=2, pictures=False)
    torn.prompts.write_text("[1]\n")
    (made / "tiny-torn" / "seed-0").mkdir(parents=True)
    (made / "trainings" / "x" / "seed-0").mkdir(parents=True)
    return made


def names(listing: dict, seed: int, group: int = 0) -> list[str]:
    """The runs of a seed; group 0 are those of the two arms that compare."""
    main = next(run["group"] for run in listing["runs"] if run["seed"] == 1)
    return [run["name"] for run in listing["runs"] if run["seed"] == seed and (run["group"] != main) == group]


def test_runs_come_most_diverse_first_and_those_that_cannot_be_shown_with_the_reason(outputs):
    listing = RunBrowser(outputs).list_runs()
    assert len(listing["runs"]) == 5 and len(listing["groups"]) == 2
    means = [run["diversity"]["st_lpips"] for run in listing["runs"]]
    assert means == sorted(means, reverse=True)
    assert "-afe-" not in listing["runs"][-1]["arm"] and means[-1] < means[0] - 0.05
    reasons = {item["status"]: item["reason"] for item in listing["left_out"]}
    assert len(listing["left_out"]) == 4
    assert reasons["failed"] == synthetic_runs.FAILURE
    assert "no run.json" in reasons["absent"]
    assert "its process is gone" in reasons["interrupted"]
    assert "run the cell again with force=true" in reasons["unreadable"]
    assert {"st_lpips", "st_lpips@refined_shared_noise", "vendi"} <= {measure["key"] for measure in listing["measures"]}
    json.dumps(listing, allow_nan=False)


def test_grids_are_side_by_side_at_one_seed_filtered_and_sorted_by_diversity(outputs):
    browser = RunBrowser(outputs)
    chosen = names(browser.list_runs(), seed=1)
    assert len(chosen) == 2

    def ask_for(**more) -> dict:
        return browser.grids({"runs": chosen, "measure": "st_lpips", **more})

    answer = ask_for()
    assert (answer["total"], answer["left_out_prompts"]) == (6, 0)
    assert [row["prompt_id"] for row in answer["rows"]] == list(range(6))
    for row in answer["rows"]:
        assert [run["name"] for run in row["runs"]] == chosen
        for run in row["runs"]:
            scores = pd.read_parquet(outputs / run["name"] / "scores.parquet")
            own = scores[(scores.prompt_id == row["prompt_id"]) & (scores.condition == "refined") & (scores.metric == "st_lpips")]
            assert run["diversity"] == pytest.approx(own.value.item())
            assert len(run["candidates"]) == 3
            assert run["candidates"][0]["pieces"][0] == (row["coarse"], False)
            assert browser.picture(*run["candidates"][0]["picture"].split("/", 4)[2:]).is_file()

    def sums(rows: list[dict]) -> list[float]:
        return [sum(run["diversity"] for run in row["runs"]) for row in rows]

    def gaps(rows: list[dict]) -> list[float]:
        return [abs(row["runs"][0]["diversity"] - row["runs"][1]["diversity"]) for row in rows]

    assert sums(ask_for(order="most diverse")["rows"]) == sorted(sums(answer["rows"]), reverse=True)
    assert sums(ask_for(order="least diverse")["rows"]) == sorted(sums(answer["rows"]))
    assert gaps(ask_for(order="largest difference")["rows"]) == sorted(gaps(answer["rows"]), reverse=True)
    assert [row["prompt_id"] for row in ask_for(filter="SNOW cat")["rows"]] == [0, 5]
    assert ask_for(filter="zebra") == {"total": 0, "left_out_prompts": 0, "rows": []}
    assert [len(ask_for(limit=2)["rows"]), ask_for(limit=2)["total"]] == [2, 6]


def test_prompts_whose_diversity_was_not_measured_come_last(outputs):
    browser = RunBrowser(outputs)
    answer = browser.grids({"runs": names(browser.list_runs(), 0), "measure": "no_such_measure", "order": "most diverse"})
    assert [row["prompt_id"] for row in answer["rows"]] == list(range(6))
    assert {run["diversity"] for row in answer["rows"] for run in row["runs"]} == {None}


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "pick at least one run"),
        ({"runs": ["x/seed-0"]}, "there is no run 'x/seed-0' that can be shown any more"),
        ({"runs": "two seeds"}, "different seeds"),
        ({"runs": "two groups"}, "different data or weights"),
        ({"runs": "one", "order": "up"}, "order must be one of"),
        ({"runs": "one", "limit": 0}, "limit must be a whole number from 1 to 200"),
        ({"runs": "one", "filter": 3}, "measure and filter must be text"),
    ],
)
def test_what_does_not_compare_is_refused(outputs, question, said):
    browser = RunBrowser(outputs)
    listing = browser.list_runs()
    one = names(listing, 0)[:1]
    if isinstance(runs := question.get("runs"), str):
        others = {"one": [], "two seeds": names(listing, 1)[:1], "two groups": names(listing, 0, 1)[:1]}
        question = {**question, "runs": one + others[runs]}
    with pytest.raises(UserError, match=said):
        browser.grids(question)


def test_only_pictures_of_runs_are_given_away(outputs, tmp_path):
    browser = RunBrowser(outputs)
    arm, seed = names(browser.list_runs(), 0)[0].split("/")
    assert browser.picture(arm, seed, "images/0000-coarse-0.png").is_file()
    (outputs / "secret.png").write_bytes(b"")
    link = outputs / arm / seed / "images" / "link.png"
    link.symlink_to(outputs / "secret.png")
    for parts in (
        (arm, seed, "run.json"),
        (arm, seed, "../../secret.png"),
        (arm, seed, str(outputs / "secret.png")),
        (arm, seed, "images/link.png"),
        (arm, seed, "images/absent.png"),
        ("..", seed, "secret.png"),
        ("tiny-torn", "seed-0", "x.png"),
    ):
        with pytest.raises(NoSuchPicture):
            browser.picture(*parts)
    link.unlink()


def test_a_run_that_changes_is_read_again_and_a_missing_picture_is_no_error(tmp_path):
    folder = synthetic_runs.write_cell(tmp_path, {}, 0, num_prompts=2)
    browser = RunBrowser(tmp_path)
    name = browser.list_runs()["runs"][0]["name"]
    next(folder.images.glob("0001-refined-2.png")).unlink()
    row = browser.grids({"runs": [name]})["rows"][1]
    assert [candidate["picture"] is None for candidate in row["runs"][0]["candidates"]] == [False, False, True]
    folder.fail("disk full")
    assert browser.list_runs()["left_out"][0]["reason"] == "disk full"
    assert RunBrowser(None).list_runs()["runs"] == [] == RunBrowser(tmp_path / "absent").list_runs()["left_out"]
