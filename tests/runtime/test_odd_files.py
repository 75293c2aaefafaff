"""YAML that trips its own constructors, and paths that nothing has: one line that names the file, whatever command was given it."""

from __future__ import annotations

import pytest

from ablations import alignment, checks, controls, frontier, plan, report, run
from ablations.config import parse
from ablations.refiner import exported_refiner
from ablations.results.registration import read_registration
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from ablations.sweeping.sweep_file import read_sweep_file

ODD_YAML = (
    *(
        "seed: !!int abc",
        "seed: " + "9" * 5000,
        "seed: [2024-13-45]",
        "seed: !!timestamp 2024-13-45",
        "seed: !!bool maybe",
        "seed: !!float x",
    ),
    *(
        "seed: !!python/object:os.system x",
        "seed: *nobody",
        "seed: !!binary '?'",
        "a: &b [*b]",
        "seed: " + "[" * 5000,
        "<<: 1",
        "- - -\n? [a]",
    ),
)
NO_PATHS = ("x" * 5000, "x/" * 3000, "a\0b", "\udcff", "nowhere", "/dev/null/x")


@pytest.mark.parametrize("text", ODD_YAML, ids=lambda text: text[:24])
def test_yaml_that_its_constructors_refuse_is_one_line_with_the_file(text, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    for read in (lambda: read_sweep_file(file), lambda: parse([f"config={file}"])):
        with pytest.raises(UserError) as caught:
            read()
        assert str(file) in str(caught.value) and len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["3", "2024-01-01", "true"])
def test_plugins_that_are_no_names_are_one_line(value, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(f"plugins: {value}\n")
    with pytest.raises(UserError, match=r"^plugins: .* is no name of a module"):
        parse([f"config={file}"])


@pytest.mark.parametrize("field", ["q: .inf", "q: .nan", "max: .inf", "max: 1.0e+400"])
def test_numbers_that_are_none_in_a_range_are_refused(field, tmp_path):
    file = tmp_path / "odd.yaml"
    fields = {"min": "1", "max": "9", "q": "1", "distribution": "q_uniform"} | dict([field.split(": ")])
    block = ", ".join(f"{name}: {value}" for name, value in fields.items())
    file.write_text(f"program: ablations/run.py\nmethod: random\nrun_cap: 2\nparameters:\n  prompt_len: {{{block}}}\n")
    with pytest.raises(UserError, match="prompt_len"):
        read_sweep_file(file)


@pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: repr(path[:12]))
def test_a_path_that_nothing_has_is_said_in_one_line_by_every_command_that_reads_one(path, capsys):
    for command, words in (
        *((report, [path]), (controls, [path]), (checks, [path]), (alignment, [path]), (frontier, [path])),
        *((plan, [path, "--no-probe"]), (run, [f"config={path}"])),
    ):
        assert command.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and len(error) <= 301


@pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: repr(path[:12]))
def test_whoever_reads_a_run_an_export_or_a_registration_says_that_there_is_none(path):
    from pathlib import Path

    for read in (find_trained_run, exported_refiner.read, lambda given: read_registration(Path(given))):
        with pytest.raises(UserError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[1]", "{}", '{"format": 1, "config": [], "weights_digest": "e"}', '{"format": NaN}', "\x00"]
)
def test_an_exported_folder_of_another_shape_is_one_line_with_the_remedy(content, tmp_path):
    file = tmp_path / exported_refiner.CONFIG
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    with pytest.raises(UserError, match="export the run again"):
        exported_refiner.read(tmp_path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[1]", "{}", '{"planned": {}, "claims": []}', '{"format": 1, "planned": 3, "claims": 1}']
)
def test_a_registration_of_another_shape_is_one_line(content, tmp_path):
    (tmp_path / "registration.json").write_text(content)
    with pytest.raises(UserError, match="registration"):
        read_registration(tmp_path / "registration.json")


def test_what_an_error_says_of_a_long_value_is_cut_and_keeps_its_remedy(capsys):
    assert run.main([f"prompt_len={'9' * 5000}"]) == 2
    assert len(capsys.readouterr().err) <= 301
    assert report.main(["y" * 4000, "z" * 4000, "--no-such-option"]) == 2
    error = capsys.readouterr().err
    assert len(error) <= 301 and error.endswith("(python -m ablations.report --help)\n")
