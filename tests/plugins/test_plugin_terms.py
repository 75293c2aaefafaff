"""Loss terms and AFE readings from a plug-in: keys, names and digests follow from the row, and what is off is not computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablations.cell.loading.module import build_module
from ablations.config import KEYS, arm_name, from_flat_dict, help_text, parse, to_flat_dict, train_id
from ablations.config.presets import named_ablations
from ablations.reporting.layouts import LOSSES, loss_terms
from ablations.runtime.errors import UserError
from ablations.sweeping.cells import cells_of
from ablations.sweeping.sweep_file import read_sweep_file
from helpers.plugins import EXAMPLES, open_tables
from helpers.refiner_modules import make_module, with_terms
from lightning_modules.settings import AFESettings, LossSettings
from lightning_modules.terms import Term, all_terms, register

COUNTING = """
import torch
from torch import nn
from lightning_modules.terms import Term, register

calls = []

class Size(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def of(self, step):
        calls.append(len(step.batch["ids_B"]))
        return self.scale * step.features.states_BSD.float().square().mean()

register(Term("size", title="L_size", loss=Size, help="L_size: text features stay small", weight=2.0, tiny_weight=3.0))
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A folder for plug-ins, which is the current one, and the examples of the docs; the tables are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    with open_tables(tmp_path, EXAMPLES):
        yield tmp_path


def write(folder: Path, text: str, name: str = "my_terms") -> str:
    (folder / f"{name}.py").write_text(text)
    return name


def test_a_term_brings_its_config_keys_help_arm_names_and_rows(plugins):
    write(plugins, COUNTING)
    config = parse(["plugins=my_terms", "use_size=true"])
    assert config.loss.size_weight == 3.0 and parse(["plugins=my_terms", "use_size=true", "profile=paper"]).loss.size_weight == 2.0
    assert not parse(["plugins=my_terms"]).use_size
    assert arm_name(config).startswith("tiny-len6-mse-text-clip-afe-size-") and train_id(config).startswith("tiny-mse-text-clip-afe-size-")
    assert "use_size=false" in help_text() and "loss.size_weight=3.0" in help_text()
    assert "L_size: text features stay small" in help_text()
    assert named_ablations()["with_size"]["use_size"] is True
    assert parse(["plugins=my_terms", "ablation=with_size"]).use_size
    settings = to_flat_dict(config)
    assert loss_terms(settings) == "mse+text+clip+size" and LOSSES.label(loss_terms(settings)) == "with L_size"
    assert "use_size" in LOSSES.varies()
    with pytest.raises(UserError, match="did you mean 'use_size'"):
        parse(["plugins=my_terms", "use_sice=true"])
    with pytest.raises(UserError, match=r"loss.size_weight must be a number above 0"):
        parse(["plugins=my_terms", "loss.size_weight=0"])


def test_a_term_trains_with_its_weight_and_switched_off_it_is_not_computed(plugins, small_backbones, make_batch):
    write(plugins, COUNTING)
    off = build_module(parse(["plugins=my_terms"]), small_backbones)
    off.training_step(make_batch())
    import my_terms

    assert my_terms.calls == [] and "size" not in off.loss_terms
    on = build_module(parse(["plugins=my_terms", "use_size=true", "loss.size_weight=0.25", "train.decay_share=0"]), small_backbones)
    terms, _ = on.compute_terms(make_batch())
    assert my_terms.calls == [4]
    assert list(terms) == ["l_mse", "l_text", "l_clip", "l_size"]
    expected = terms["l_mse"] + terms["l_text"] + 0.1 * terms["l_clip"] + 0.25 * terms["l_size"]
    assert on.total_loss(terms).item() == pytest.approx(expected.item(), rel=1e-6)
    # The terms before it are what they are without it, and its own parameter is trained and saved.
    assert {name: value.item() for name, value in terms.items() if name != "l_size"} == {
        name: value.item() for name, value in off.compute_terms(make_batch())[0].items()
    }
    on.training_step(make_batch()).backward()
    assert on.loss_terms["size"].scale.grad.abs() > 0
    assert "loss_terms.size.scale" in on.state_dict()
    trained = {id(p) for group in on.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert id(on.loss_terms["size"].scale) in trained


def test_the_example_of_a_loss_is_zero_at_step_0_and_pulls_back_what_moved(plugins, small_backbones, make_batch):
    config = parse(["plugins=plugin_loss", "use_anchor=true", "use_mse=false", "use_clip=false"])
    module = build_module(config, small_backbones)
    # Two copies of one network in two settings of autograd: some processors round them apart in the last bit.
    assert module.compute_terms(make_batch())[0]["l_anchor"].item() == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        module.text_encoder.ln_final.weight.mul_(1.5)
    anchor = module.compute_terms(make_batch())[0]["l_anchor"]
    anchor.backward()
    assert anchor.item() > 0.01 and module.text_encoder.ln_final.weight.grad.abs().sum() > 0


def test_the_code_of_a_plugin_is_part_of_the_names_of_what_it_changes(plugins):
    write(plugins, COUNTING)
    plain, off = parse([]), parse(["plugins=my_terms"])
    on = parse(["plugins=my_terms", "use_size=true"])
    assert train_id(off) == train_id(plain) and arm_name(off) != arm_name(plain)
    before = arm_name(on), train_id(on), arm_name(off), train_id(off)
    with open_tables(plugins):
        from ablations.runtime import plugins as loaded

        loaded._loaded["my_terms"] = "changed"
        after = arm_name(on), train_id(on), arm_name(off), train_id(off)
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, False, True]


def test_a_config_out_of_a_run_imports_its_plugins_again(plugins):
    write(plugins, COUNTING)
    with open_tables(plugins):
        flat = to_flat_dict(parse(["plugins=my_terms", "use_size=true"]))
    assert "use_size" not in KEYS
    assert from_flat_dict(flat).use_size and "use_size" in KEYS


def test_a_config_file_may_name_plugins(plugins):
    write(plugins, COUNTING)
    (plugins / "mine.yaml").write_text("plugins: [my_terms]\nuse_size: true\n")
    assert parse(["config=mine.yaml"]).use_size


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        (None, "absent_module", "plugins: there is no module 'absent_module', neither in .* nor among the installed packages"),
        (None, "my_terms.py", "plugins: 'my_terms.py' is no name of a module, as in my_module; write my_terms"),
        ("import nothing_of_this_name", "my_terms", "plugins: my_terms cannot be imported: my_terms.py line 1: ModuleNotFoundError"),
        ("x = (", "my_terms", "plugins: my_terms cannot be imported: my_terms.py line 1: SyntaxError"),
        ("x = 1\ny = x / 0", "my_terms", "plugins: my_terms cannot be imported: my_terms.py line 2: ZeroDivisionError"),
        (
            "from lightning_modules.terms import *\nfrom torch import nn\nregister(Term('mse', 'x', nn.Module, 'x'))",
            "my_terms",
            "loss term mse: there is another one of this name",
        ),
        (
            "from lightning_modules.terms import *\nfrom torch import nn\nregister(Term('afe', 'x', nn.Module, 'x'))",
            "my_terms",
            "loss term afe: use_afe is a switch already",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_line(plugins, text, value, message):
    if text is not None:
        write(plugins, text)
    with pytest.raises(UserError, match=message) as raised:
        parse([f"plugins={value}"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "No Name"}, "lower-case word"),
        ({"weight": 0.0}, "weights must be above 0"),
        ({"reads": ("pixels",)}, "reads 'pixels'; it may be latents, image_vectors"),
        ({"trains": ("unet",)}, "trains 'unet'"),
    ],
)
def test_a_malformed_row_says_what_it_may_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Term(**{"name": "x", "title": "x", "loss": torch.nn.Module, "help": "x", **settings})


def test_registering_the_same_term_again_is_harmless(plugins):
    term = Term("again", title="L_again", loss=torch.nn.Module, help="x")
    assert register(term) == register(term) and [other.name for other in all_terms()].count("again") == 1


def test_the_example_of_a_reading_weighs_halves_of_the_pooled_feature_and_trains(plugins, small_backbones, make_batch):
    config = parse(["plugins=plugin_reading", "afe.reading=halves", "use_mse=false", "use_text=false"])
    module = build_module(config, small_backbones)
    assert module.encoders["image_vectors"].shapes() == {"image_pooled": (128,)}
    batch = make_batch(bank=(4, 5), reads="pooled")
    assert torch.allclose(module.afe(batch["image_pooled_BE"][:, None]).weights_BK.sum(-1), torch.ones(4))
    terms, watched = module.compute_terms(batch)
    assert "afe_class_token_mass" not in watched and watched["afe_cosine_to_pooled"].item() < 0.9
    terms["l_clip"].backward()
    assert module.afe.projection.weight.grad.abs().sum() > 0
    plain = parse(["use_mse=false", "use_text=false"])
    assert train_id(config) != train_id(plain)
    with pytest.raises(UserError, match=r"afe\.reading must be one of class_and_patches, .*, halves, not 'patch'"):
        parse(["plugins=plugin_reading", "afe.reading=patch"])


def test_a_reading_by_its_name_is_what_the_module_uses(small_backbones):
    with pytest.raises(ValueError, match="no AFE reading is called 'absent'"):
        make_module(small_backbones, LossSettings(with_terms().weights, afe=AFESettings(reading="absent")))


@pytest.mark.parametrize("arguments", [[], ["plugins=my_terms"]])
def test_a_sweep_file_or_its_arguments_may_name_plugins_whose_keys_it_sweeps(plugins, arguments):
    write(plugins, COUNTING)
    named = "" if arguments else "  plugins: {value: my_terms}\n"
    (plugins / "mine.yaml").write_text(
        f"program: ablations/run.py\nmethod: grid\nparameters:\n{named}  use_size: {{values: [true, false]}}\n"
    )
    cells = cells_of(read_sweep_file(plugins / "mine.yaml", arguments)).cells
    assert [cell.config.use_size for cell in cells] == [True, False]
    assert ["-size-" in arm_name(cell.config) for cell in cells] == [True, False]
