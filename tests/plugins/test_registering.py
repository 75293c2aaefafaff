"""What every open table refuses, and what it takes: names that are taken, entries that cannot be meant, the same module twice."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from ablations.baselines.register import Method
from ablations.baselines.register import register as register_method
from ablations.metrics.base import Metric
from ablations.metrics.register import register as register_metric
from ablations.results.conditions import Condition, always, as_they_are
from ablations.results.conditions import register as register_condition
from ablations.runtime.errors import UserError
from datamodules.readers.register import Reader
from datamodules.readers.register import register as register_reader
from helpers.plugins import loaded, open_tables

ENTRIES: dict[str, Callable] = {
    "metric": lambda name: register_metric(Metric(name, "T", "image", True, (0, 1), ("images",), "none")),
    "condition": lambda name: register_condition(Condition(name, "t", always, lambda round: as_they_are(round.coarse))),
    "method": lambda name: register_method(Method(name, "t", "a line", lambda context: None)),
    "reader": lambda name: register_reader(Reader(name, lambda path: False, lambda source: None, file="X")),
}
TAKEN = {"metric": "piqe", "condition": "refined", "method": "coarse", "reader": "parquet"}


@pytest.mark.parametrize("kind", list(ENTRIES))
def test_a_name_that_is_taken_is_refused_and_what_had_it_stays(kind):
    with open_tables(), pytest.raises(ValueError, match=f"two different {kind}s are called '{TAKEN[kind]}'"):
        ENTRIES[kind](TAKEN[kind])


@pytest.mark.parametrize("kind", list(ENTRIES))
def test_an_entry_may_be_registered_again_as_a_module_may_be_imported_again(kind):
    with open_tables():
        assert ENTRIES[kind]("mine").name == ENTRIES[kind]("mine").name == "mine"


@pytest.mark.parametrize("kind", ["metric", "condition", "method"])
@pytest.mark.parametrize("name", ["", "two words", "a,b", "../up", "x@y", None])
def test_a_name_that_cannot_be_written_on_a_command_line_or_in_a_file_is_refused(kind, name):
    with open_tables(), pytest.raises(UserError, match="cannot be called"):
        ENTRIES[kind](name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per": "set"}, "per must be"),
        ({"range": (1, 0)}, "least and the greatest"),
        ({"per": "pictures"}, "needs it"),
        ({"needs": ("sound",)}, "needs may hold"),
        ({"block": "beauty"}, "block must be"),
        ({"function": 5}, "must be a function"),
    ],
)
def test_a_metric_that_cannot_be_meant_is_one_line_that_names_it(changes, said):
    declared = {
        "name": "m",
        "title": "M",
        "per": "image",
        "higher_is_better": True,
        "range": (0, 1),
        "needs": ("images",),
        "licence": "none",
    }
    with pytest.raises(UserError, match=f"^metric m: .*{said}"):
        Metric(**{**declared, **changes})


def test_conditions_methods_and_readers_that_cannot_be_meant_are_refused():
    with pytest.raises(UserError, match="condition c: give it a title"):
        Condition("c", "", always, as_they_are)
    with pytest.raises(UserError, match="condition c: `when` and `write` must be functions"):
        Condition("c", "t", always, None)
    with pytest.raises(UserError, match="depends_on may hold training, adapter, refining, rewriting, not weather"):
        Condition("c", "t", always, as_they_are, depends_on=("weather",))
    with pytest.raises(UserError, match="method m: give it a title and a line about it"):
        Method("m", "t", "", lambda context: None)
    with pytest.raises(UserError, match="cannot be called 'all'"):
        register_method(Method("all", "t", "a", lambda context: None))
    with pytest.raises(ValueError, match="reader r: say in a word or two"):
        Reader("r", lambda path: True, lambda source: None)


def test_every_example_can_be_imported_twice(tmp_path):
    names = ("plugin_metric", "plugin_condition", "plugin_baseline", "plugin_reader")
    with loaded(tmp_path, *names):
        for name in names:
            importlib.reload(sys.modules[name])


def test_no_table_needs_a_heavy_library_to_be_listed():
    program = (
        "import sys\n"
        "from ablations.baselines.register import describe_methods\n"
        "from ablations.metrics.register import all_metrics\n"
        "from ablations.results.conditions import all_conditions\n"
        "from datamodules.readers.register import what_a_source_may_be\n"
        "assert all([describe_methods(), all_metrics(), all_conditions(), what_a_source_may_be()])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'pytorch_lightning', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
