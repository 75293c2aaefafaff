"""The config of a cell: every key, what it may be, and the names that follow from it.

A key is declared once, with its default, kind, help, profile values and constraint; validation, `--help` and the digests are generated
from that. Layers, later ones win: defaults < profile < YAML (`config=FILE`) < command line `key=value`. Imports no heavy library, so
that a mistake is reported at once.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from ablations.config_parsing import (
    UNSET,
    Key,
    Scalar,
    convert,
    key_list,
    keys_of,
    nest,
    option,
    read_command_line,
    read_yaml,
    require_known,
    show,
    warn_of_no_effect,
)
from ablations.errors import UserError
from ablations.named_ablations import NAMED_ABLATIONS


@dataclass(frozen=True)
class LossConfig:
    """Weights and details of the loss terms"""

    mse_weight: float = option(1.0, "train", "weight of L_mse", above=0, needs="use_mse=true")
    text_weight: float = option(0.1, "train", "weight of L_text", tiny=1.0, above=0, needs="use_text=true")
    clip_weight: float = option(0.1, "train", "weight of L_clip (not published: reconstructed)", above=0, needs="use_clip=true")
    feature_weight: float = option(1.0, "train", "weight of feature matching (our addition)", above=0, needs="use_feature=true")
    clip_scale: float | None = option(
        10.0, "train", "scale of L_clip's logits (reconstructed); null = OpenCLIP's own, frozen", above=0, needs="use_clip=true"
    )
    clip_bank: int = option(
        0, "train", "further negatives of L_clip per batch, from the feature cache", tiny=48, least=0, needs="use_clip=true"
    )
    hard_negatives: bool = option(False, "train", "let negatives of L_clip share the subject, so that style counts", needs="use_clip=true")


@dataclass(frozen=True)
class AFEConfig:
    """Adaptive feature extraction (reconstructed)"""

    temperature: float = option(1.0, "train", "of the softmax over image vectors; low = sharp weights", above=0, needs="use_afe=true")
    hidden: int = option(64, "train", "width of the network that weighs the image vectors", least=1, needs="use_afe=true")
    grid: int = option(4, "train", "patch tokens are pooled to grid x grid vectors", least=1, most=32, needs="use_afe=true")


@dataclass(frozen=True)
class AdapterConfig:
    """The domain adapter"""

    output_relu: bool = option(True, "train", "end A with a ReLU, as the authors do", tiny=False, as_before=True)
    match_scale: bool = option(False, "train", "start A at the scale of T5's embeddings (our addition)", tiny=True, as_before=False)
    mask_padding: bool = option(False, "train", "hide positions after the text from T5; false = as the authors", tiny=True, as_before=False)


@dataclass(frozen=True)
class TrainConfig:
    """Training; it ends at max_steps or max_epochs, whichever comes first"""

    max_steps: int | None = option(None, "train", "optimiser steps; null = no limit", tiny=550, least=1)
    max_epochs: int | None = option(100, "train", "passes over the data; null = no limit", tiny=None, least=1)
    batch_size: int = option(16, "train", "records per batch, over all devices", tiny=8, least=1)
    accumulate: int = option(4, "train", "batches per optimiser step", tiny=1, least=1)
    learning_rate: float = option(5e-5, "train", "of AdamW, constant after the warm-up until the decay", tiny=4e-4, above=0)
    new_parts_lr_scale: float = option(
        1.0, "train", "the learning rate of A and AFE, which start from nothing, relative to E_T's", tiny=8.0, above=0
    )
    beta1: float = option(0.9, "train", "of AdamW", least=0, below=1)
    beta2: float = option(0.999, "train", "of AdamW", tiny=0.98, least=0, below=1)
    weight_decay: float = option(1e-2, "train", "of AdamW", least=0)
    adam_eps: float = option(1e-8, "train", "of AdamW", above=0)
    grad_clip: float = option(1.0, "train", "largest norm of the gradient; 0 = no clipping", least=0)
    warmup_steps: int = option(1000, "train", "optimiser steps of linear warm-up", tiny=20, least=0)
    decay_share: float = option(
        0.0, "train", "share of the training, at its end, over which the learning rate falls to 0", tiny=0.5, least=0, most=1, as_before=0.0
    )
    target_len: int | None = option(None, "train", "T5 tokens of the fine prompt that L_text trains on; null = all", least=1, most=512)
    precision: str = option(
        "16-mixed", "train", "numbers of the forward pass", tiny="32-true", choices=("32-true", "bf16-mixed", "16-mixed")
    )
    checkpoint_every: int = option(200, "run", "optimiser steps between checkpoints", least=1)
    log_every: int = option(10, "run", "optimiser steps between log lines", least=1)


@dataclass(frozen=True)
class DataConfig:
    """Records; relative paths start at the working directory"""

    source: str = option("tiny", "train", "'tiny' (the embedded world), or coarse-fine prompts: a CSV or parquet file, a folder", path=True)
    images: str | None = option(None, "train", "the folder that image paths are relative to; null = the source's own", path=True)
    num_train: int = option(1200, "train", "training records of the tiny world", least=1, needs="data.source=tiny")
    num_validation: int = option(
        256, "train", "records held out of training, for validation and, of a table, for evaluation", tiny=32, least=1
    )
    image_size: int = option(512, "train", "pixels per side", tiny=64, least=16, most=2048, multiple_of=8)
    random_flip: bool = option(True, "train", "mirror images at random (the tiny world has a left and a right)", tiny=False)
    clean_captions: bool = option(True, "train", "clean the text as the authors do: lower case, no punctuation but commas", tiny=False)
    max_bad_fraction: float = option(0.05, "train", "share of bad records above which the run stops", least=0, most=1)
    cache: bool = option(True, "run", "keep frozen features on disk (same numbers, much faster)")
    cache_dir: str | None = option(None, "run", "where; null = OUTPUT_DIR/cache", path=True, needs="data.cache=true")
    num_workers: int = option(0, "run", "processes that load data", least=0)


@dataclass(frozen=True)
class BackbonesConfig:
    """The frozen or initial networks"""

    dir: str | None = option(None, "train", "a folder to load them from; null = the profile's own", path=True)
    init: str = option(
        "pretrained", "train", "random = same shapes, no pre-training: for tests and as a control", choices=("pretrained", "random")
    )


@dataclass(frozen=True)
class EvalConfig:
    """Refining, drawing and scoring the evaluation prompts"""

    num_prompts: int = option(16, "eval", "evaluation prompts; 0 = train only", paper=100, least=0)
    num_candidates: int = option(3, "eval", "refined prompts per coarse prompt", least=1)
    coarse_length: str = option("middle", "eval", "which of the coarse prompts is refined", choices=("short", "middle", "long"))
    mode: str = option("extend", "eval", "extend by prompt_len tokens (strategy 1) or rewrite (2)", choices=("extend", "rewrite"))
    extend_by: str = option(
        "prime",
        "eval",
        "the decoder continues the prompt's own tokens (prime), or writes afresh and is appended (append)",
        choices=("prime", "append"),
        needs="eval.mode=extend",
    )
    rounds: int = option(1, "eval", "refinement steps", least=1, most=64)
    max_new_tokens: int = option(50, "eval", "longest rewritten prompt, in T5 tokens", tiny=40, least=1, most=512)
    top_p: float = option(0.95, "eval", "nucleus sampling: the share of probability that is kept", above=0, most=1)
    top_k: int = option(50, "eval", "tokens that are kept; 0 = all", least=0)
    steps: int = option(50, "eval", "sampling steps per image", tiny=15, least=1, most=1000)
    guidance_scale: float = option(7.0, "eval", "classifier-free guidance; 1 = none (paper: 7, the authors' code: 7.5)", least=0)
    controls: bool = option(True, "eval", "score the controls too")
    plug_in: bool = option(
        True, "eval", "score the coarse prompt drawn with the trained E_T in place of the original text encoder", as_before=False
    )
    rewrite_too: bool = option(True, "eval", "score rewritten prompts beside extended ones", needs="eval.mode=extend")
    grid_prompts: int = option(6, "eval", "rows of the diversity grid; 0 = no grid", least=0)
    batch_size: int = option(16, "run", "images drawn at a time", tiny=64, least=1)
    reuse: bool = option(True, "run", "take pictures and scores that were made before from the cache (same results)")


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases"""

    mode: str = option(
        "auto", "run", "auto = WANDB_MODE, else online with a login, else offline", choices=("auto", "online", "offline", "disabled")
    )
    project: str = option("uf-fgtg-ablations", "run", "project name")
    entity: str | None = option(None, "run", "user or team; null = your default")
    group: str | None = option(None, "run", "group of runs; null = the arm")
    name: str | None = option(None, "run", "name of the run; null = the arm and seed")


@dataclass(frozen=True)
class TrainerConfig:
    """The machine"""

    accelerator: str = option("auto", "run", "what computes", choices=("auto", "cpu", "gpu", "cuda", "mps"))
    devices: int = option(1, "run", "devices of each machine; they share train.batch_size, and results stay the same", least=1)
    num_nodes: int = option(1, "run", "machines; more than one needs torchrun or srun", least=1)
    strategy: str = option("auto", "run", "Lightning's: auto = ddp for more than one device, else none", choices=("auto", "ddp"))
    threads: int | None = option(None, "run", "threads of torch; null = torch's choice (bit-equal reruns need equal counts)", least=1)
    progress: str = option("auto", "run", "auto = a bar on a terminal, plain lines elsewhere", choices=("auto", "bar", "plain", "none"))


@dataclass(frozen=True)
class Config:
    """A cell. Get one from `parse` or `from_flat_dict`: the bare class knows the defaults but no profile, and `use_afe` is unresolved."""

    prompt_len: int = option(6, "eval", "tokens that one round appends", least=1, most=256)
    use_mse: bool = option(True, "train", "L_mse: the frozen UNet denoises the fine image, told the coarse prompt")
    use_text: bool = option(True, "train", "L_text: the frozen T5 writes the fine prompt")
    use_clip: bool = option(True, "train", "L_clip: text features are pulled to the fine image's (reconstructed)")
    use_afe: bool | None = option(None, "train", "adaptive feature extraction within L_clip; null = as use_clip")
    use_feature: bool = option(False, "train", "feature matching (our addition): text features are pulled to the fine prompt's")
    seed: int = option(0, "seed", "all chance follows from it", least=0, most=2**32 - 1)
    profile: str = option("tiny", "train", "tiny = everything embedded, no downloads; paper = SD 2.1 scale", choices=("tiny", "paper"))
    ablation: str | None = option(
        None, "run", "an arm of the paper's tables by name: sets use_mse to use_feature and prompt_len", choices=tuple(NAMED_ABLATIONS)
    )
    output_dir: str = option("outputs", "run", "where run folders go", path=True)
    config: str | None = option(None, "run", "a YAML file with keys, nested or dotted", path=True)
    force: bool = option(False, "run", "run a finished cell again")
    loss: LossConfig = LossConfig()
    afe: AFEConfig = AFEConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    backbones: BackbonesConfig = BackbonesConfig()
    eval: EvalConfig = EvalConfig()
    wandb: WandbConfig = WandbConfig()
    trainer: TrainerConfig = TrainerConfig()


KEYS: dict[str, Key] = keys_of(Config)


def parse(argv: list[str]) -> Config:
    """The config that the arguments `key=value` ask for, checked and with `use_afe` resolved to a bool.

    Raises UserError, in one line, for an unknown or repeated key, a wrong type, an impossible value or combination, and a file that is
    not there. Logs a warning for each key that was set but has no effect.
    """
    typed = {name: convert(KEYS[name], text) for name, text in read_command_line(argv, KEYS).items()}
    file = typed.get("config")
    from_file: dict[str, Scalar] = {}
    if file is not None:
        from_file = {name: convert(KEYS[name], raw, f" in {file}") for name, raw in read_yaml(str(file), KEYS).items()}
        if "config" in from_file:
            raise UserError(f"config: {file} names another config file; give one file, on the command line")
    _check_named_ablation(from_file | typed)
    config = _build(from_file, typed)
    _check_paths(config)
    warn_of_no_effect(from_file | typed, to_flat_dict(config), KEYS)
    return config


def from_flat_dict(flat: Mapping[str, Any]) -> Config:
    """The config of a flat dict such as run.json holds; keys that it lacks take their value in its profile.

    Checks keys, types and combinations as `parse` does, but not that files exist: results are also read on other machines. A key that
    was added after the dict was written takes the value that means what was done before it existed.
    """
    for name in flat:
        require_known(name, KEYS)
    older = {name: key.option.as_before for name, key in KEYS.items() if key.option.as_before is not UNSET}
    return _build(older, {name: convert(KEYS[name], raw) for name, raw in flat.items()})


def to_flat_dict(config: Config) -> dict[str, Scalar]:
    """Every key's value by dotted name, in the order of declaration: `{"prompt_len": 6, ..., "loss.mse_weight": 1.0, ...}`."""
    flat: dict[str, Scalar] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        flat |= {f"{item.name}.{name}": v for name, v in to_flat_dict(value).items()} if is_dataclass(value) else {item.name: value}
    return flat


def _build(*layers: Mapping[str, Scalar]) -> Config:
    """Defaults < profile < named ablation < the layers of typed values, as a checked Config."""
    given: dict[str, Scalar] = {name: value for layer in layers for name, value in layer.items()}
    profile = str(given.get("profile", KEYS["profile"].default))
    schema = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)  # OmegaConf takes a frozen dataclass for a read-only config
    profile_layer = {name: key.profile_default(profile) for name, key in KEYS.items()}
    profile_layer |= NAMED_ABLATIONS.get(str(given.get("ablation")), {})
    merged = OmegaConf.merge(schema, nest(profile_layer), *(nest(layer) for layer in layers))
    if merged.use_afe and not merged.use_clip:
        raise UserError("use_afe=true needs use_clip=true: AFE acts only through L_clip (use_afe=null follows use_clip)")
    if merged.use_afe is None:
        merged.use_afe = merged.use_clip
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    _check_combinations(config)
    return config


def _check_named_ablation(given: Mapping[str, Scalar]) -> None:
    """Raises UserError where a key says otherwise than the ablation that was named: the name would lie."""
    name = given.get("ablation")
    for key, value in NAMED_ABLATIONS.get(str(name), {}).items():
        if key in given and given[key] != value:
            raise UserError(f"ablation={name} means {key}={show(value)}, not {key}={show(given[key])}: leave one of the two out")


def _check_combinations(config: Config) -> None:
    """Raises UserError where values that are possible one by one are impossible together."""
    if not (config.use_mse or config.use_text or config.use_clip or config.use_feature):
        raise UserError("nothing to train: at least one of use_mse, use_text, use_clip and use_feature must be true")
    if config.train.max_steps is None and config.train.max_epochs is None:
        raise UserError("training would never end: train.max_steps and train.max_epochs are both null; set one of them")
    if config.profile == "tiny" and config.data.image_size != 64:
        raise UserError(f"data.image_size={config.data.image_size}, but the tiny networks draw 64 px: leave it at 64")
    processes = config.trainer.devices * config.trainer.num_nodes
    if config.train.batch_size % processes:
        raise UserError(
            f"train.batch_size={config.train.batch_size} cannot be shared out evenly among {processes} processes "
            f"(trainer.devices={config.trainer.devices}, trainer.num_nodes={config.trainer.num_nodes}): take a multiple of {processes}"
        )
    if config.data.source == "tiny":
        needed = config.train.batch_size + (config.loss.clip_bank if config.use_clip else 0)
        if config.data.num_train < needed:
            raise UserError(f"data.num_train={config.data.num_train} is too few for train.batch_size and loss.clip_bank: {needed} or more")
    elif config.loss.hard_negatives:
        raise UserError("loss.hard_negatives=true needs subject labels, which a table has not: leave it false")
    if config.use_clip:
        if config.train.batch_size + config.loss.clip_bank < 2:
            raise UserError(
                f"use_clip=true needs at least two candidates, but train.batch_size={config.train.batch_size} and "
                f"loss.clip_bank={config.loss.clip_bank}; raise one of them"
            )
        if config.loss.clip_bank > 0 and not config.data.cache:
            raise UserError(f"loss.clip_bank={config.loss.clip_bank} needs data.cache=true, where it draws from; or set it to 0")


def _check_paths(config: Config) -> None:
    """Raises UserError for an input that is not there, or an output folder that cannot be one."""
    if config.data.source != "tiny" and not os.path.exists(config.data.source):
        raise UserError(f"data.source: there is no file {config.data.source!r}; give tiny, a CSV or parquet file, or a folder")
    for name, folder in (("data.images", config.data.images), ("backbones.dir", config.backbones.dir)):
        if folder is not None and not os.path.isdir(folder):
            raise UserError(f"{name}: there is no folder {folder!r}")
    for name, folder in (("output_dir", config.output_dir), ("data.cache_dir", config.data.cache_dir)):
        if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
            raise UserError(f"{name}: {folder!r} is a file, not a folder")


def digest(config: Config, kinds: tuple[str, ...], keys: Mapping[str, Key] = KEYS) -> str:
    """SHA-256 (hex) of the keys of these kinds and their values; equal digests mean equal values.

    The digest covers every key, default or not, rather than only those that differ from the defaults: a default that is changed later then
    gives a new digest instead of passing old results off as new ones. A key that is *added* later would also rename every old result, for
    nothing: such a key declares `as_before`, the value that means what the code did until then, and is left out at that value.
    """
    flat = to_flat_dict(config)
    covered = {name: flat[name] for name, key in keys.items() if key.option.kind in kinds and flat[name] != key.option.as_before}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def arm_name(config: Config) -> str:
    """The arm's folder name, as in `tiny-len6-mse-text-clip-afe-1a2b3c4d`: a slug and 8 digits of the digest of all train and eval keys."""
    e = config.eval
    words = [config.profile, f"len{config.prompt_len}"]
    words += ["rewrite"] if e.mode == "rewrite" else ["append"] if e.extend_by == "append" else []
    words += [f"rounds{e.rounds}"] if e.rounds > 1 else []
    return "-".join([*words, *_terms(config), digest(config, ("train", "eval"))[:8]])


def train_id(config: Config) -> str:
    """The name of the training, as in `tiny-mse-text-clip-afe-1a2b3c4d5e6f`: arms that differ only in eval keys share it."""
    return "-".join([config.profile, *_terms(config), digest(config, ("train",))[:12]])


def _terms(config: Config) -> list[str]:
    terms = {"mse": config.use_mse, "text": config.use_text, "clip": config.use_clip, "afe": config.use_afe, "feature": config.use_feature}
    return [term for term, on in terms.items() if on]


_USAGE = """\
usage: python -m ablations.run [key=value ...]

Runs one cell: trains a prompt refiner (or takes the checkpoint of an earlier arm with the same train keys), refines the
evaluation prompts, draws them, scores the images, and leaves everything in OUTPUT_DIR/ARM/seed-SEED. A finished cell is not run
again.

examples:
  python -m ablations.run                                      the tiny profile: no downloads, no account, no GPU
  python -m ablations.run prompt_len=12                        another length; the training is shared with the first run
  python -m ablations.run use_clip=false seed=1                without L_clip (and so without AFE), second seed
  python -m ablations.run config=mine.yaml loss.clip_scale=null
  python -m ablations.run profile=paper data.source=cfp.csv data.images=images

Values: defaults < profile < YAML (config=FILE) < command line. null is no value; true and false may be capitalised.
Kinds: train keys change the training; eval keys change only what follows it, so that arms which differ in them share a
checkpoint; run keys (paths, workers, logging) change no result and no name; the seed makes a cell of an arm.
"""


def help_text() -> str:
    """The text of --help: usage, examples, and every key with its default, kind, meaning and constraint."""
    groups = {item.name: (item.type.__doc__ or "") for item in fields(Config) if is_dataclass(item.type)}
    return f"{_USAGE}\nkeys, as key=default in profile=tiny:\n\n{key_list(KEYS, {'': 'The arm and the run', **groups})}\n"


__all__ = [
    "KEYS",
    "Config",
    "arm_name",
    "digest",
    "from_flat_dict",
    "help_text",
    "parse",
    "show",
    "to_flat_dict",
    "train_id",
]
