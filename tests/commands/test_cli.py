"""The command line of `ablations.run`: mistakes get one line and exit code 2 at once; help comes without heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.commands import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promt_len=6"], "did you mean 'prompt_len'"),
        (["prompt_len=six"], "prompt_len"),
        (["prompt_len=0"], "prompt_len"),
        (["use_afe=true", "use_clip=false"], "use_afe"),
        (["config=absent.yaml"], "absent.yaml"),
        (["data.source=absent.csv"], "absent.csv"),
        (["train.learning_rate=nan"], "train.learning_rate"),
        (["use_mse=false", "use_text=false", "use_clip=false"], "nothing to train"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_with_exit_code_2_within_a_second(arguments, said):
    code, out, error, seconds = run(*arguments)
    assert code == 2
    assert seconds < 1
    assert out == ""
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("error: ") and said in error


def test_help_lists_every_key_without_importing_torch():
    code, out, _, seconds = run("--help")
    assert code == 0
    assert seconds < 1
    from ablations.config import KEYS

    assert all(name.rpartition(".")[2] in out for name in KEYS)
    probe = "import sys, ablations.run; ablations.run.main(['--help']); ablations.run.main(['x=1']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert result.stdout.strip().endswith("False")


def test_an_unknown_pretraining_stage_is_named():
    code, _, error, _ = run("wae", module="ablations.pretrain_tiny")
    assert code == 2
    assert "unknown stage 'wae'" in error


def test_help_lists_the_keys_that_plug_ins_bring(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(
        "from lightning_modules.terms import Term, register\nregister(Term('tiny', 'L_tiny', 'my_loss:Tiny', 'L_tiny: something small'))\n"
    )
    code, out, error, _ = run("plugins=my_loss", "--help")
    assert (code, error) == (0, "") and "use_tiny=false" in out and "loss.tiny_weight=1.0" in out
    code, out, error, _ = run("plugins=no_such_module")
    assert (code, out, len(error.splitlines())) == (2, "", 1) and "plugins: there is no module 'no_such_module'" in error
