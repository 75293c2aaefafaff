"""What is asked for: the config of a cell, its keys, and the names that follow from it. Imports no heavy library."""

from ablations.config.config import from_flat_dict, parse, to_flat_dict
from ablations.config.help import help_text
from ablations.config.keys import KEYS, Config, EvalConfig
from ablations.config.names import arm_name, digest, train_id
from ablations.config.parsing import show

__all__ = [
    "KEYS",
    "Config",
    "EvalConfig",
    "arm_name",
    "digest",
    "from_flat_dict",
    "help_text",
    "parse",
    "show",
    "to_flat_dict",
    "train_id",
]
