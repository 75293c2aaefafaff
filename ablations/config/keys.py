"""Every config key, declared once, with its default, kind, help, profile values and constraint. Imports no heavy library.

The two keys of each loss term, `use_NAME` and `loss.NAME_weight`, follow from the table of terms, those of plug-ins included: so the class
of a config is put together by `config_class`, and `KEYS` are the keys as they are now. `ablations.config` makes configs, checks what is
impossible together, and derives names.
"""

import functools
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from ablations.config.parsing import Key, keys_of, option
from ablations.config.presets import named_ablations
from lightning_modules.published import IMAGE_MODEL, OPEN_CLIP
from lightning_modules.readings import DEFAULT_READING, reading_names
from lightning_modules.terms import Term, all_terms


@dataclass(frozen=True)
class _LossConfig:
    """Weights and details of the loss terms"""

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

    reading: str = option(
        DEFAULT_READING,
        "train",
        "what the image vectors are and how they are weighed",
        choices=reading_names,
        needs="use_afe=true",
        as_before="class_and_patches",
    )
    weights: str = option(
        "learned",
        "train",
        "learned, or a control with the same parameters: uniform = equal weights, frozen = a random network that is never trained",
        choices=("learned", "uniform", "frozen"),
        needs="use_afe=true",
        as_before="learned",
    )
    forcing: float = option(
        0.0,
        "train",
        "weight, within L_clip, of the forcing term: a text must fit its picture under its own weights better than under another's",
        least=0,
        needs="use_afe=true",
        as_before=0.0,
    )
    temperature: float = option(1.0, "train", "of the softmax over what is weighed; low = sharp weights", above=0, needs="use_afe=true")
    hidden: int = option(64, "train", "width of the network that weighs", least=1, needs="use_afe=true")
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
        "bf16-mixed",
        "train",
        "numbers of what is trained in the forward pass; 16-mixed = as the authors (GPU only)",
        tiny="32-true",
        choices=("32-true", "bf16-mixed", "16-mixed"),
    )
    checkpoint_every: int = option(200, "run", "optimiser steps between checkpoints to go on from", least=1, paper=2000)
    checkpoint_minutes: float | None = option(
        None, "run", "minutes between them, whichever comes first; null = by steps alone", above=0, paper=10.0
    )
    keep_every: int | None = option(
        None, "run", "optimiser steps between checkpoints that are kept, for eval.checkpoint=STEP; null = none", least=1
    )
    keep_best: int = option(
        0, "run", "how many checkpoints of the lowest held-out loss are kept, for eval.checkpoint=best", least=0, paper=1
    )
    log_every: int = option(10, "run", "optimiser steps between log lines", least=1)
    validate_every: int = option(50, "run", "optimiser steps between looks at the losses of a few held-out records; 0 = none", least=0)
    grid_every: int = option(
        0,
        "run",
        "optimiser steps between diversity grids of the refiner so far, of the eval.grid_prompts first prompts, for W&B and the training's "
        "folder; 0 = none",
        least=0,
    )
    validate_records: int = option(16, "run", "how many held-out records that is", least=2, paper=128)
    check_records: int = option(512, "run", "held-out records that the manipulation checks read after training; 0 = no checks", least=0)


@dataclass(frozen=True)
class DataConfig:
    """Records; relative paths start at the working directory"""

    source: str = option("tiny", "train", "'tiny' (the embedded world), or coarse-fine prompts: a CSV or parquet file, a folder", path=True)
    images: str | None = option(None, "train", "the folder that image paths are relative to; null = the source's own", path=True)
    test_source: str | None = option(
        None,
        "train",
        "another such source, all of it held out (as the authors' test table) and none of it trained on; or a list of prompts, as "
        "eval.prompts; null = none",
        path=True,
        as_before=None,
    )
    own_split: bool = option(
        True,
        "train",
        "hold out what the source's own split says, where it has one (a column split, folders train and test)",
        as_before=True,
    )
    num_train: int = option(1200, "train", "training records of the tiny world", least=1, needs="data.source=tiny")
    world: int = option(
        2,
        "train",
        "which tiny world: 1 = one style suits a scene, 2 = two or three do, and prompts vary in length",
        least=1,
        most=2,
        needs="data.source=tiny",
        as_before=1,
    )
    caption_dropout: float = option(
        0.0,
        "train",
        "share of the training texts without the style word that their picture shows",
        least=0,
        most=1,
        needs="data.source=tiny",
        as_before=0.0,
    )
    num_validation: int = option(
        8192,
        "train",
        "records held out of training, for validation and, of a table, for evaluation; of a split of the source's own at most so many",
        tiny=32,
        least=1,
    )
    image_size: int = option(512, "train", "pixels per side", tiny=64, least=16, most=2048, multiple_of=8)
    random_flip: bool = option(True, "train", "mirror images at random (the tiny world has a left and a right)", tiny=False)
    clean_captions: bool = option(True, "train", "clean the text as the authors do: lower case, no punctuation but commas", tiny=False)
    max_bad_fraction: float = option(0.05, "train", "share of bad records above which the run stops", least=0, most=1)
    cache: bool = option(True, "run", "keep frozen features on disk (same numbers, much faster)")
    cache_dir: str | None = option(None, "run", "where; null = OUTPUT_DIR/cache", path=True, needs="data.cache=true")
    num_workers: int | None = option(None, "run", "processes that load data; null = 4 for a GPU, else none", least=0)
    encode_batch_size: int = option(8, "run", "images that the frozen networks encode at a time for the cache", tiny=64, least=1)


@dataclass(frozen=True)
class BackbonesConfig:
    """The frozen or initial networks"""

    dir: str | None = option(None, "train", "a folder to load them from; null = the profile's own", path=True)
    init: str = option(
        "pretrained",
        "train",
        "random = same shapes, no pre-training, no download: for tests, as a control and, with profile=paper, as a rehearsal at full size",
        choices=("pretrained", "random"),
    )
    image_model: str | None = option(
        None,
        "train",
        f"hub id of Stable Diffusion, OWNER/NAME or OWNER/NAME@REVISION; null = {IMAGE_MODEL.partition('@')[0]} at a pinned commit, a "
        "mirror: the publisher's own is withdrawn",
        needs="profile=paper",
        as_before=None,
    )
    open_clip: str | None = option(
        None,
        "train",
        f"MODEL/TAG[@REVISION] of OpenCLIP's list, the one whose text tower the image model reads; null = {OPEN_CLIP.partition('@')[0]} "
        "at a pinned commit",
        needs="profile=paper",
        as_before=None,
    )
    t5: str | None = option(
        None, "train", "hub id of T5, OWNER/NAME[@REVISION]; null = google-t5/t5-base", needs="profile=paper", as_before=None
    )
    frozen_dtype: str = option(
        "float32",
        "train",
        "precision of UNet, image tower and T5; half of it is half the memory (float16: GPU only, and T5 stays in float32)",
        paper="bfloat16",
        choices=("float32", "bfloat16", "float16"),
        as_before="float32",
    )
    vae_dtype: str | None = option(
        None,
        "train",
        "precision of the VAE, whose latents and pictures half precision rounds; null = as frozen_dtype",
        paper="float32",
        choices=("float32", "bfloat16", "float16"),
        as_before=None,
    )


@dataclass(frozen=True)
class EvalConfig:
    """Refining, drawing and scoring the evaluation prompts"""

    num_prompts: int = option(10, "eval", "evaluation prompts; 0 = train only", paper=100, least=0)
    prompts: str | None = option(
        None,
        "eval",
        "a list of prompts to evaluate with in place of held-out ones (PartiPrompts, DrawBench, GenEval 2: docs/data.md); null = none",
        path=True,
        as_before=None,
    )
    num_candidates: int = option(3, "eval", "refined prompts per coarse prompt", least=1)
    draw: str = option(
        "read",
        "eval",
        "which pictures: read = those that a table reads of this arm (docs/sweeping.md); all = every condition, with all candidates",
        choices=("read", "all"),
        as_before="all",
        only_adds=True,
    )
    text_prompts: int = option(
        0,
        "eval",
        "held-out prompts that are refined, the first eval.num_prompts among them: the others are scored as texts, without pictures",
        tiny=256,
        least=0,
        as_before=0,
        only_adds=True,
    )
    coarse_length: str = option("middle", "eval", "which of the coarse prompts is refined", choices=("short", "middle", "long"))
    checkpoint: str = option(
        "last",
        "eval",
        "of the training: last, best (by held-out loss; train.keep_best) or the number of a step (train.keep_every)",
        as_before="last",
    )
    mode: str = option("extend", "eval", "extend by prompt_len tokens (strategy 1) or rewrite (2)", choices=("extend", "rewrite"))
    extend_by: str = option(
        "prime",
        "eval",
        "the decoder continues the prompt's own tokens (prime), or writes afresh and is appended (append)",
        choices=("prime", "append"),
        needs="eval.mode=extend",
    )
    exact_length: bool = option(
        True,
        "eval",
        "a round appends prompt_len tokens exactly; false = at most so many, the refiner may end before",
        as_before=True,
        needs="eval.mode=extend",
    )
    rounds: int = option(1, "eval", "refinement steps", least=1, most=64)
    max_new_tokens: int = option(50, "eval", "longest rewritten prompt, in T5 tokens", tiny=40, least=1, most=512)
    top_p: float = option(0.95, "eval", "nucleus sampling: the share of probability that is kept", above=0, most=1)
    top_k: int = option(50, "eval", "tokens that are kept; 0 = all", least=0)
    any_piece: bool = option(
        True,
        "eval",
        "the decoder may write any piece of its vocabulary; false = those alone that occur in the fine training texts",
        as_before=True,
    )
    steps: int = option(50, "eval", "sampling steps per image", tiny=15, least=1, most=1000)
    guidance_scale: float = option(7.0, "eval", "classifier-free guidance; 1 = none (paper: 7, the authors' code: 7.5)", least=0)
    controls: bool | None = option(
        None, "eval", "score the controls too: true = with all candidates, false = nowhere, null = where a table reads them", only_adds=True
    )
    plug_in: bool | None = option(
        None,
        "eval",
        "score the coarse prompt drawn with the trained E_T in place of the original text encoder; true, false, null as eval.controls",
        as_before=False,
        only_adds=True,
    )
    rewrite_too: bool | None = option(
        None,
        "eval",
        "score rewritten prompts beside extended ones; true, false, null as eval.controls",
        needs="eval.mode=extend",
        only_adds=True,
    )
    grid_prompts: int = option(6, "eval", "rows of the diversity grid; 0 = no grid", least=0, only_adds=True)
    long_prompts: str = option(
        "truncate",
        "eval",
        "prompts of more than 77 tokens are drawn from their first 77 (truncate), or encoded in chunks of 77 as the authors did (chunk)",
        paper="chunk",
        choices=("truncate", "chunk"),
        as_before="truncate",
    )
    metrics: str | None = option(
        None,
        "eval",
        "further metrics of the images, which python -m ablations.metrics describes; paper = the paper's six",
        paper="paper",
        listed=True,
        as_before=None,
    )
    judge: str | None = option(
        None,
        "eval",
        "the CLIP model of CLIP scores, CLIP distance and Vendi; null = the profile's own (tiny: one of another seed than draws, paper: "
        "ViT-L-14/openai); conditioning = the OpenCLIP that is trained from and draws",
        choices=("tiny", "ViT-L-14/openai", "conditioning"),
        as_before="conditioning",
    )
    sentence_encoder: str | None = option(
        None,
        "eval",
        "what embeds sentences for sentence_similarity: folder or hub id of a transformer, mean-pooled; null = the original text encoder",
        path=True,
        as_before=None,
    )
    missing_metrics: str = option(
        "error",
        "run",
        "a metric that cannot be computed, as its weights are missing: error = stop before training; skip = 'not available' in tables",
        paper="skip",
        choices=("error", "skip"),
    )
    metrics_dir: str | None = option(
        None, "run", "where the weights of metrics lie; null = pyiqa's cache, $TORCH_HOME/hub/pyiqa", path=True
    )
    batch_size: int = option(16, "run", "images drawn at a time", tiny=32, least=1)
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
    checkpoint_unet: bool = option(
        False,
        "run",
        "recompute the UNet's activations in the backward pass: less memory, more time, the same numbers",
        needs="use_mse=true",
    )
    compile_unet: bool = option(False, "run", "run the UNet through torch.compile: the same numbers to rounding")
    threads: int | None = option(None, "run", "threads of torch; null = torch's choice (bit-equal reruns need equal counts)", least=1)
    progress: str = option("auto", "run", "auto = a bar on a terminal, plain lines elsewhere", choices=("auto", "bar", "plain", "none"))


@dataclass(frozen=True)
class _Config:
    """A cell. Get one from `parse` or `from_flat_dict`: the bare class knows the defaults but no profile, and `use_afe` is unresolved."""

    prompt_len: int = option(6, "eval", "tokens that one round appends", least=1, most=256)
    use_afe: bool | None = option(None, "train", "adaptive feature extraction within L_clip; null = as use_clip")
    plugins: str | None = option(
        None,
        "eval",
        "modules of yours that add loss terms, AFE readings, metrics, conditions, readers: imported first (docs/extending.md)",
        listed=True,
        as_before=None,
    )
    seed: int = option(0, "seed", "all chance follows from it", least=0, most=2**32 - 1)
    profile: str = option("tiny", "train", "tiny = everything embedded, no downloads; paper = SD 2.1 scale", choices=("tiny", "paper"))
    ablation: str | None = option(
        None,
        "run",
        "an arm of the paper's tables by name: sets the loss terms, use_afe and prompt_len",
        choices=lambda: tuple(named_ablations()),
    )
    output_dir: str = option("outputs", "run", "where run folders go", path=True)
    config: str | None = option(None, "run", "a YAML file with keys, nested or dotted", path=True)
    force: bool = option(False, "run", "run a finished cell again")
    loss: _LossConfig = _LossConfig()
    afe: AFEConfig = AFEConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    backbones: BackbonesConfig = BackbonesConfig()
    eval: EvalConfig = EvalConfig()
    wandb: WandbConfig = WandbConfig()
    trainer: TrainerConfig = TrainerConfig()


def _fields_of(cls: type) -> list[tuple[str, type, Any]]:
    return [(item.name, item.type, field(default=item.default, metadata=item.metadata)) for item in fields(cls)]


def _switch(term: Term) -> tuple[str, type, Any]:
    return f"use_{term.name}", bool, option(term.on, "train", term.help)


def _weight(term: Term) -> tuple[str, type, Any]:
    declared = {} if term.tiny_weight is None else {"tiny": term.tiny_weight}
    text = f"weight of {term.title}{term.weight_help}"
    return f"{term.name}_weight", float, option(term.weight, "train", text, above=0, needs=f"use_{term.name}=true", **declared)


@functools.cache
def _config_class(terms: tuple[Term, ...]) -> type:
    loss = make_dataclass("LossConfig", [*map(_weight, terms), *_fields_of(_LossConfig)], frozen=True)
    loss.__doc__ = _LossConfig.__doc__
    declared = {name: (name, *rest) for name, *rest in _fields_of(_Config)}
    switches = {}
    for term in terms:  # each followed by those that act through it
        switches |= {f"use_{term.name}": _switch(term)} | {f"use_{name}": declared.pop(f"use_{name}") for name in term.switches}
    first = {"prompt_len": declared.pop("prompt_len")}
    declared = list((first | switches | declared).values())
    declared = [("loss", loss, field(default=loss())) if name == "loss" else (name, *rest) for name, *rest in declared]
    cell = make_dataclass("Config", declared, frozen=True)
    cell.__doc__ = _Config.__doc__
    for cls in (loss, cell):
        cls.__module__ = __name__
    return cell


def config_class() -> type:
    """The class of a config: the keys declared here, and two for each loss term that is registered now."""
    return _config_class(all_terms())


Config = config_class()


@functools.cache
def _keys(terms: tuple[Term, ...]) -> dict[str, Key]:
    return keys_of(_config_class(terms))


class _Keys(Mapping[str, Key]):
    """Every key by dotted name, in the order of declaration; a term that is registered later brings its keys along."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Term, ...], dict[str, Key]] = (), {}

    def _now(self) -> dict[str, Key]:
        terms, kept = all_terms(), self._kept
        if terms != kept[0]:  # mostly the same objects: cheaper than their hashes, for what is asked a hundred times a config
            self._kept = kept = terms, _keys(terms)
        return kept[1]

    def __getitem__(self, name: str) -> Key:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def items(self) -> ItemsView[str, Key]:
        return self._now().items()


KEYS: Mapping[str, Key] = _Keys()
