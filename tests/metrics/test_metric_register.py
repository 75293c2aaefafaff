"""The register of metrics, the files of weights behind it, and the config keys that ask for metrics. Nothing here loads a network."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import arm_name, from_flat_dict, parse, to_flat_dict
from ablations.metrics import weights
from ablations.metrics.__main__ import main
from ablations.metrics.register import GROUPS, all_metrics, metric_named, names_in, require
from ablations.runtime.errors import UserError

NIQE, ILNIQE = "niqe_modelparameters.mat", "ILNIQE_templateModel.mat"
TECHNICAL = "weights_mobilenet_technical_0.11.hdf5"


@pytest.fixture
def published(monkeypatch) -> bytes:
    """Bytes that stand for NIQE's published file: some megabytes, so that it comes in several blocks."""
    content = bytes(range(256)) * 12_000
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, NIQE, dataclasses.replace(weights.WEIGHTS[NIQE], sha256=digest))
    return content


@pytest.fixture
def server(monkeypatch, published):
    """A stand-in for the hub on this machine; `server.reply` says what it sends: (status, announced length, bytes)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, length, content = hub.reply
            hub.asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    hub = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    hub.asked, hub.reply = [], (200, len(published), published)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


# The register


def test_the_register_holds_the_metrics_of_the_paper_and_of_this_suite():
    metrics = all_metrics()
    expected = {*GROUPS["paper"], "nima-technical", "nima-aesthetic", "clip_score", "laion-aesthetics", "inception-score"}
    expected |= {"brisque", "niqe", "ilniqe", "piqe", "entropy", "st_lpips", "fidelity", "words_drawn"}
    assert expected <= set(metrics)
    lower = {name for name, metric in metrics.items() if metric.higher_is_better is False}
    assert {"brisque", "niqe", "ilniqe", "piqe"} <= lower and not lower & {*GROUPS["paper"], "nima-technical", "laion-aesthetics"}
    assert all(name in weights.WEIGHTS for metric in metrics.values() for name in metric.weights)
    assert metrics["piqe"].weights == metrics["entropy"].weights == ()


def test_nimas_label_problem_is_stated_where_the_column_is_described():
    assert "NIMA-TID" in metric_named("nima").note and "AVA" in metric_named("nima").note
    assert "TID2013" in metric_named("nima-technical").note


def test_the_inception_score_says_that_it_depends_on_the_number_of_pictures():
    assert metric_named("inception-score").per == "pictures"
    assert "equal N" in metric_named("inception-score").note


def test_listing_metrics_loads_no_heavy_library_and_help_comes_at_once():
    code = (
        "import sys, contextlib, io; from ablations.metrics.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main([])\n"
        "print([m for m in ('torch', 'pyiqa', 'h5py', 'scipy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    started = time.process_time()
    assert main(["--help"]) == 0
    assert time.process_time() - started < 0.5


def test_the_list_names_direction_range_needs_licence_and_weights_of_each(capsys, tmp_path):
    assert main(["--json", "--dir", str(tmp_path)]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(all_metrics())
    assert listed["nima-technical"]["weights"] == {TECHNICAL: "missing"}
    assert listed["nima-technical"]["range"] == [1.0, 10.0] and listed["niqe"]["range"] == [0.0, None]
    assert listed["clip_score"]["needs"] == ["image", "prompt"] and listed["niqe"]["better"] == "lower"
    assert main(["--dir", str(tmp_path)]) == 0
    assert "niqe_modelparameters.mat, 0.01 MB, missing; CC BY-NC-SA 4.0" in capsys.readouterr().out


# Asking for metrics


def test_names_are_put_in_order_and_groups_are_spelt_out():
    assert names_in("niqe, brisque,niqe") == ("brisque", "niqe")
    assert names_in("[niqe,'brisque']") == ("brisque", "niqe")
    assert names_in("paper") == tuple(sorted(GROUPS["paper"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("niqee", "unknown metric 'niqee'; the nearest is 'niqe'"),
        ("niqe,vendi", "vendi is not computed from pictures alone"),
        (" , ", "names no metric"),
    ],
)
def test_a_name_that_cannot_be_asked_for_is_refused_in_one_line(text, said):
    with pytest.raises(UserError, match=said):
        parse([f"eval.metrics={text}"])


def test_missing_weights_are_an_error_that_names_files_folder_and_remedy(tmp_path):
    with pytest.raises(UserError) as caught:
        require(["piqe", "niqe", "nima-technical"], "error", tmp_path)
    message = str(caught.value)
    assert NIQE in message and TECHNICAL in message and str(tmp_path) in message and "\n" not in message
    assert "python -m ablations.metrics fetch niqe nima-technical" in message and "eval.missing_metrics=skip" in message


def test_with_skip_missing_metrics_are_unavailable_and_the_others_stay(tmp_path):
    required = require(["piqe", "niqe"], "skip", tmp_path)
    assert [metric.name for metric in required.available] == ["piqe"]
    assert set(required.unavailable) == {"niqe"} and NIQE in required.unavailable["niqe"]


def test_a_damaged_file_is_as_good_as_missing(tmp_path):
    (tmp_path / NIQE).write_bytes(b"not what was published")
    (tmp_path / TECHNICAL).write_bytes(b"<html>log in first</html>")
    unavailable = require(["niqe", "nima-technical"], "skip", tmp_path).unavailable
    assert "damaged (its SHA-256 begins with" in unavailable["niqe"]
    assert "damaged (it is not a file of weights)" in unavailable["nima-technical"]


def test_pictures_that_are_too_small_for_a_metric_are_found_out_before_training(tmp_path):
    with pytest.raises(UserError, match=r"niqe: it reads pictures of 192 px or more a side, these have 64"):
        parse(["eval.metrics=niqe", f"eval.metrics_dir={tmp_path}"])


# Config keys


def test_a_metric_without_weights_stops_the_run_while_its_arguments_are_read(tmp_path):
    keys = ["eval.metrics=nima-aesthetic", f"eval.metrics_dir={tmp_path}"]
    with pytest.raises(UserError, match="weights_mobilenet_aesthetic"):
        parse(keys)
    parse([*keys, "eval.missing_metrics=skip"])
    parse([*keys, "eval.num_prompts=0"])


def test_asking_for_metrics_makes_another_arm_but_their_order_and_place_do_not(tmp_path):
    plain = arm_name(parse([]))
    skip = ["eval.missing_metrics=skip", f"eval.metrics_dir={tmp_path}"]
    one, other = (arm_name(parse([f"eval.metrics={text}", *skip])) for text in ("brisque,nima", "nima,brisque"))
    assert one == other != plain
    assert arm_name(parse(skip)) == plain


def test_a_yaml_list_means_the_same_as_names_with_commas(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("eval:\n  metrics: [nima, brisque]\n  missing_metrics: skip\n")
    config = parse([f"config={file}"])
    assert config.eval.metrics == "brisque,nima"
    assert from_flat_dict(to_flat_dict(config)).eval.metrics == "brisque,nima"


# Scores that are kept


def test_scores_are_kept_by_metric_version_and_weights(tmp_path, monkeypatch):
    (tmp_path / NIQE).write_bytes(b"one")
    first = metric_named("niqe").key(tmp_path)
    assert first == f"niqe.v1.{hashlib.sha256(b'one').hexdigest()[:8]}"
    (tmp_path / NIQE).write_bytes(b"others")
    assert metric_named("niqe").key(tmp_path) != first
    assert metric_named("piqe").key(tmp_path) == "piqe.v1"


def test_a_metric_whose_name_begins_anothers_does_not_read_the_others_scores(tmp_path):
    for name in ("NIMA_InceptionV2_ava-b0c77c00.pth", "NIMA_VGG16_ava-dc4e8265.pth"):
        (tmp_path / name).write_bytes(name.encode())
    keys = [metric_named(name).key(tmp_path) for name in ("nima-vgg16-ava", "nima")]
    ScoreStore(tmp_path, {}).remember(keys[0], ["picture"], lambda positions: np.array([7.0]))
    again = ScoreStore(tmp_path, {})
    assert again.remember(keys[1], ["picture"], lambda positions: np.array([5.0]))[0, 0] == 5.0
    assert again.remember(keys[0], ["picture"], lambda positions: pytest.fail("it was kept"))[0, 0] == 7.0


# fetch and check


def test_fetch_keeps_a_whole_file_and_does_not_get_it_twice(server, published, tmp_path, capsys):
    assert main(["fetch", "niqe", "--dir", str(tmp_path)]) == 0
    assert (tmp_path / NIQE).read_bytes() == published
    assert server.asked == [f"/chaofengc/IQA-PyTorch-Weights/resolve/main/{NIQE}"]
    assert "as published" in capsys.readouterr().out
    assert main(["fetch", "niqe", "--dir", str(tmp_path)]) == 0
    assert len(server.asked) == 1 and "present already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: (200, len(content), content[:-1] + b"x"), "is not the published file"),
        (lambda content: (200, len(content), content[:2_000_000]), "broke off after 2000000 of 3072000 bytes"),
        (lambda content: (404, 0, b""), "answers 404"),
    ],
)
def test_what_is_not_the_published_file_is_not_kept(server, published, tmp_path, capsys, spoil, said):
    server.reply = spoil(published)
    assert main(["fetch", "niqe", "--dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_fetch_says_so_in_one_line_and_names_the_way_around(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["fetch", "niqe", "--dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: niqe_modelparameters.mat: http://127.0.0.1:9/") and "--from DIR" in error and error.count("\n") == 1


def test_files_that_were_got_elsewhere_are_taken_from_a_folder_and_checked(tmp_path, published, capsys):
    downloads, folder = tmp_path / "downloads", tmp_path / "weights"
    downloads.mkdir()
    (downloads / NIQE).write_bytes(published)
    (downloads / ILNIQE).write_bytes(b"cut short")
    assert main(["fetch", "niqe,ilniqe", "--from", str(downloads), "--dir", str(folder)]) == 1
    assert (folder / NIQE).read_bytes() == published and not (folder / ILNIQE).exists()
    assert ILNIQE in capsys.readouterr().err
    assert main(["check", "niqe", "--dir", str(folder)]) == 0
    assert main(["check", "niqe", "ilniqe", "--dir", str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"{NIQE}: present" in said and f"{ILNIQE}: missing (for ilniqe)" in said and str(folder) in said


@pytest.mark.parametrize(
    "words", [["check", "niqee"], ["check", "--from", "."], ["fetch", "--from", "nowhere"], ["fetsch"], ["--dri", "x"]]
)
def test_mistakes_in_the_arguments_end_with_code_2_and_one_line(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_lie_where_pyiqa_keeps_its_own_unless_a_folder_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weights.weights_folder() == tmp_path / "hub" / "pyiqa"
    assert weights.weights_folder("~/w") == Path("~/w").expanduser()
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.weights_folder() == tmp_path / "torch" / "hub" / "pyiqa"
