"""The text of `python -m ablations.run --help`."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from ablations.config.config import plugins_asked_for
from ablations.config.keys import KEYS, config_class
from ablations.config.parsing import key_list
from ablations.runtime.plugins import load_plugins

_USAGE = """\
usage: python -m ablations.run [key=value ...]

Runs one cell: trains a prompt refiner (or takes the checkpoint of an earlier arm with the same train keys), refines the
evaluation prompts, draws them, scores the images, and leaves everything in OUTPUT_DIR/ARM/seed-SEED. A finished cell is not run
again.

examples:
  python -m ablations.run                                      the tiny profile: no downloads, no account, no GPU
  python -m ablations.run prompt_len=12                        another length; the training is shared with the first run
  python -m ablations.run use_clip=false seed=1                without L_clip (and so without AFE), second seed
  python -m ablations.run plugins=my_module use_my_loss=true   with a loss term of your own (docs/extending.md)
  python -m ablations.run config=mine.yaml loss.clip_scale=null
  python -m ablations.run profile=paper data.source=cfp.csv data.images=images
  python -m ablations.run profile=paper backbones.init=random  a rehearsal at full size: no downloads, a few steps, minutes

Values: defaults < profile < YAML (config=FILE) < command line. null is no value; true and false may be capitalised.
Kinds: train keys change the training; eval keys change only what follows it, so that arms which differ in them share a
checkpoint; run keys (paths, workers, logging) change no result and no name; the seed makes a cell of an arm.
"""


def help_text(argv: Sequence[str] = ()) -> str:
    """The text of --help: usage, examples, and every key with its default, kind, meaning and constraint.

    Plug-ins that the arguments name are imported first, so that their keys are among them.
    """
    load_plugins(plugins_asked_for(argv))
    groups = {item.name: (item.type.__doc__ or "") for item in fields(config_class()) if is_dataclass(item.type)}
    return f"{_USAGE}\nkeys, as key=default in profile=tiny:\n\n{key_list(KEYS, {'': 'The arm and the run', **groups})}\n"
