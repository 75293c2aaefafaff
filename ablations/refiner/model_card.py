"""The model card of an exported refiner: what it is, how to use it, what it scored, what it was made from and under which terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config import KEYS, Config, show, to_flat_dict
from ablations.results.conditions import in_tables
from ablations.results.trained_run import TrainedRun

TINY_NOTE = "Tiny world: claims nothing about Stable Diffusion 2.1."
# Where the terms stand that no licence of a hub's list covers, and what they are called in the card.
LICENCE_FILE, _OTHER_LICENCE = "LICENSE.md", "terms-of-its-parts"
_LIBRARIES = ("torch", "transformers", "diffusers", "open_clip_torch")
_NO_CONDITIONS = ("n", "training", "diversity")

_TEXT = """\
---
{metadata}
---

# {title}

A fine-grained text encoder for text-to-image models, with the prompt refiner that it belongs to: a reconstruction of UF-FGTG
(Hei et al., AAAI 2024, arXiv 2402.12760), which was published without code, data or weights.
{notes}
- arm `{arm}`, seed {seed}, training `{train_id}`
- code revision `{revision}`
- libraries: {versions}

## Use

The text encoder takes the place of Stable Diffusion's own. Prompts stay as they are; the negative prompt is read by it too.

```python
{pipeline}
image = pipeline("{example}", num_inference_steps={steps}, guidance_scale={guidance}).images[0]
```

Its states were compared with the trained encoder's on {num_probes} prompts; the largest difference was {difference:.1e}. Use the
tokenizer beside it: it pads with id 0, as the encoder was trained. Prompts end after 77 tokens. OpenCLIP's tokenizer also repairs
Unicode (curly quotes become straight) and HTML entities, which transformers' does not: for such text call
`html.unescape(ftfy.fix_text(text))` first.

{own_pipeline}Where the project is installed, the prompt refiner also works by itself:

```python
from ablations import PromptRefiner

refiner = PromptRefiner.from_pretrained("THIS_FOLDER")
for candidate in refiner.refine("{example}", seed=0):
    print(candidate.refined)
```

## Scores

{scores}

## Made from

| network | source | digest |
|---|---|---|
{backbones}

Digest of all together, noise schedule included: `{weights_digest}`. Digest of the training data: `{data_digest}`.

## Settings

<details><summary>Every key that changes training, refining or drawing</summary>

| key | value |
|---|---|
{settings}

</details>

## Files

| file | what it is |
|---|---|
| `text_encoder/`, `tokenizer/` | E_T as a CLIPTextModel, and its CLIPTokenizer |
{image_model_row}| `prompt_refiner/adapter.safetensors` | A, the domain adapter |
{trained_alone_rows}| `prompt_refiner/config.json` | the arm's config, digests and scores; beside it `seen_words.json`: what training read |

{frozen}

## Licence

{licence}
"""


_OWN_PIPELINE = """\
A pipeline of its own refines and draws, with torch, transformers and diffusers alone. It is code in this repository, `pipeline.py`: read it
before you trust it.

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("THIS_FOLDER", custom_pipeline="THIS_FOLDER", trust_remote_code=True)
result = pipe("{example}", num_candidates=3, seed=0)
result.prompts, result.images
```

Refined prompts are drawn with the image model's original text encoder, and with the trained one by `plug_in=True`.

"""
_IMAGE_MODEL_ROWS = """\
| `unet/`, `vae/`, `scheduler/`, `model_index.json` | the frozen image model, as diffusers saves it |
| `original_text_encoder/` | its text encoder before training |
| `decoder/`, `decoder_tokenizer/` | T5, frozen |
| `adapter/` | A once more, for the pipeline, with the settings of writing and drawing |
| `pipeline.py`, `adapter/prompt_adapter.py` | the pipeline that refines and draws |
"""
_FROZEN_ELSEWHERE = "T5 is frozen and not part of this folder; PromptRefiner takes it from where the training had it."
_FROZEN_HERE = "PromptRefiner takes T5 and the image model from where the training had them, not from this folder."


def model_card(
    run: TrainedRun,
    *,
    backbones: Mapping[str, tuple[str, str]],
    weights_digest: str,
    with_image_model: bool,
    difference: float,
    num_probes: int,
    compact: bool = False,
) -> str:
    """The README.md of an exported refiner, in Markdown.

    `backbones`: (source, digest) by network. `difference`: the largest one between the exported states and the trained encoder's, over
    `num_probes` prompts. `compact`: see `exported_refiner.write`.
    """
    config, record = run.config, run.run
    afe_row = "| `prompt_refiner/afe.safetensors` | N, adaptive feature extraction |\n"
    pooled_row = "| `prompt_refiner/pooled.safetensors` | E_T's last block and projection, which only the pooled joint feature needs |\n"
    versions = record.get("versions", {})
    return _TEXT.format(
        metadata=_metadata(config, backbones, with_image_model),
        own_pipeline=_OWN_PIPELINE.format(example=_example(config)) if with_image_model else "",
        title=f"{run}: text encoder and prompt refiner",
        notes="".join(f"\n**{note}**\n" for note in _notes(run, compact)),
        arm=record["arm"],
        seed=record["seed"],
        train_id=record["train_id"],
        revision=record.get("code_revision") or "unknown",
        versions=", ".join(f"{name} {versions[name]}" for name in _LIBRARIES if name in versions),
        pipeline=_pipeline(config, backbones, with_image_model),
        example=_example(config),
        steps=config.eval.steps,
        guidance=config.eval.guidance_scale,
        difference=difference,
        num_probes=num_probes,
        scores=_scores(run),
        backbones="\n".join(f"| {name} | {source} | `{digest}` |" for name, (source, digest) in backbones.items()),
        weights_digest=weights_digest,
        data_digest=(record.get("digests") or {}).get("data") or "unknown",
        settings=_settings(config),
        image_model_row=_IMAGE_MODEL_ROWS if with_image_model else "",
        frozen=_FROZEN_HERE if with_image_model else _FROZEN_ELSEWHERE,
        trained_alone_rows="" if compact else (afe_row if config.use_afe else "") + pooled_row,
        licence=licence(config, with_image_model)[1],
    )


def _example(config: Config) -> str:
    return "a lonely lighthouse on a beach" if config.profile == "tiny" else "a green tree"


def _metadata(config: Config, backbones: Mapping[str, tuple[str, str]], with_image_model: bool) -> str:
    """What a hub reads of the card, in YAML."""
    from huggingface_hub import ModelCardData

    tag = licence(config, with_image_model)[0]
    data = ModelCardData(
        license=tag,
        license_name=_OTHER_LICENCE if tag == "other" else None,
        license_link=LICENCE_FILE if tag == "other" else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        language="en",
        tags=["text-to-image", "prompt-refinement", "uf-fgtg", "arxiv:2402.12760"],
        base_model=_base_models(config, backbones) or None,
    )
    first = ["license", "license_name", "license_link", "library_name", "pipeline_tag"]
    return data.to_yaml(original_order=first)


def _base_models(config: Config, backbones: Mapping[str, tuple[str, str]]) -> list[str]:
    """The hub's repositories that the networks came from; none where they came from elsewhere."""
    from lightning_modules.backbones.sources import PaperSources

    if not _is_of_a_hub(backbones["UNet"][0]):
        return []
    b = config.backbones
    open_clip = PaperSources.named(b.image_model, b.open_clip, b.t5).open_clip_repository
    names = [backbones["UNet"][0], *([open_clip] if open_clip else []), backbones["T5"][0]]
    return list(dict.fromkeys(name.partition("@")[0] for name in names))


def _is_of_a_hub(source: str) -> bool:
    return "/" in source and " " not in source


def _notes(run: TrainedRun, compact: bool) -> list[str]:
    notes = [TINY_NOTE] if run.config.profile == "tiny" else []
    if run.config.backbones.init == "random":
        notes.append("Made from backbones with random weights: a rehearsal, of no use for pictures.")
    if compact:
        notes.append("Compact: weights in half precision, without AFE and the pooled feature, which refining and drawing never read.")
    return notes


def _pipeline(config: Config, backbones: Mapping[str, tuple[str, str]], with_image_model: bool) -> str:
    if with_image_model:
        return 'from diffusers import StableDiffusionPipeline\n\npipeline = StableDiffusionPipeline.from_pretrained("THIS_FOLDER")'
    hub = backbones["UNet"][0]
    base = hub if _is_of_a_hub(hub) else "THE_IMAGE_MODEL"
    name, _, revision = base.partition("@")
    commit = f', revision="{revision}"' if revision else ""
    hint = "\n# THE_IMAGE_MODEL: this run's own, in diffusers' layout (python -m ablations.export ... --with-image-model writes it)"
    return (
        "from diffusers import StableDiffusionPipeline\nfrom transformers import CLIPTextModel, CLIPTokenizer\n\n"
        'text_encoder = CLIPTextModel.from_pretrained("THIS_FOLDER", subfolder="text_encoder")\n'
        'tokenizer = CLIPTokenizer.from_pretrained("THIS_FOLDER", subfolder="tokenizer")'
        f"{hint if base != hub else ''}\n"
        f'pipeline = StableDiffusionPipeline.from_pretrained("{name}"{commit}, text_encoder=text_encoder, tokenizer=tokenizer)'
    )


def _scores(run: TrainedRun) -> str:
    metrics: Mapping[str, Any] = run.run.get("metrics") or {}
    found = [name for name in metrics if name not in _NO_CONDITIONS]
    if run.run["status"] != "finished":
        return f"None: the run is {run.run['status']}."
    if not found:
        return "None: the run was not evaluated."
    # Controls, and what is there for diversity alone, stand last.
    first = [condition.name for condition in in_tables() if not condition.is_control and not condition.shared_noise]
    conditions = [name for name in first if name in found] + sorted(set(found) - set(first))
    names = list(dict.fromkeys(metric for name in conditions for metric in metrics[name]))
    rows = [("metric", *conditions), ("---", *("---:" for _ in conditions))]
    rows += [(name, *(_figure(metrics[c].get(name)) for c in conditions)) for name in names]
    diversity: Mapping[str, Mapping[str, float]] = metrics.get("diversity", {})
    kinds = list(dict.fromkeys(metric for values in diversity.values() for metric in values))
    rows += [(f"{name} (diversity)", *(_figure(diversity.get(c, {}).get(name)) for c in conditions)) for name in kinds]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    n = metrics["n"]
    return (
        f"Means over {n['prompts']} prompts x {n['candidates']} candidates, one seed. `plug_in` is the coarse prompt drawn with this text "
        "encoder, `coarse` with the original one; `control_*` should not help. PIQE and entropy are no quality measures of small "
        f"pictures.\n\n{table}"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _settings(config: Config) -> str:
    flat = to_flat_dict(config)
    return "\n".join(f"| `{name}` | {show(value)} |" for name, value in flat.items() if KEYS[name].option.kind != "run")


def licence(config: Config, with_image_model: bool) -> tuple[str, str]:
    """The card's licence tag, and the licence in words."""
    data = "" if config.data.source == "tiny" else " The data that it was trained on has terms of its own."
    if config.backbones.dir is not None:
        return "other", f"The networks came from a folder: the terms of whoever made them hold for what was trained from them, too.{data}"
    if config.profile == "tiny":
        return "apache-2.0", f"Apache-2.0, as the project and its tiny networks.{data}"
    part = "The image model in this folder is" if with_image_model else "It was trained through"
    return "other", (
        "The text encoder was trained from OpenCLIP ViT-H/14 laion2b_s32b_b79k (MIT) and writes through T5-base (Apache-2.0). "
        f"{part} Stable Diffusion 2.1-base (CreativeML Open RAIL++-M), whose conditions of use go with it.{data}"
    )
