"""Which of the weight files that lie about are read: in a folder, in the hub's cache, or in a hub's list of files.

A network is saved in one of several forms, each whole or in shards with an index: float32 safetensors, an fp16 variant of them, and pickles
(.bin, .pth), which are read by torch.load(weights_only=True). The first that is there is taken; half precision is told to the library as
a variant, since it looks for other names then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class WeightForm:
    """A form in which diffusers and transformers save a network: `variant` and `safetensors` are what from_pretrained is told."""

    stem: str
    safetensors: bool = True
    variant: str | None = None

    @property
    def _ending(self) -> str:
        return "safetensors" if self.safetensors else "bin"

    @property
    def whole(self) -> str:
        """The name of the one file, where there are no shards."""
        return ".".join(part for part in (self.stem, self.variant, self._ending) if part)

    @property
    def index(self) -> str:
        """The name of the list of shards."""
        return ".".join(part for part in (self.stem, self._ending, "index", self.variant, "json") if part)

    def files(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that belong to this form; none where it is not whole (neither the one file nor an index is there)."""
        names = list(names)
        if self.whole in names:
            return [self.whole]
        if self.index not in names:
            return []
        number = r"-\d+-of-\d+"
        middle = number if self.variant is None else rf"(?:\.{self.variant}{number}|{number}\.{self.variant})"
        shard = re.compile(rf"{re.escape(self.stem)}{middle}\.{self._ending}")
        return [self.index, *(name for name in names if shard.fullmatch(name))]


def weight_forms(stem: str, pickled_stem: str) -> tuple[WeightForm, ...]:
    """The forms of a library, the first to be taken first. Each library has its own two stems."""
    return tuple(
        WeightForm(stem if safetensors else pickled_stem, safetensors, variant)
        for safetensors in (True, False)
        for variant in (None, "fp16")
    )


DIFFUSERS = weight_forms("diffusion_pytorch_model", "diffusion_pytorch_model")
TRANSFORMERS = weight_forms("model", "pytorch_model")
# OpenCLIP's own names, in its own order. It saves no variants and no shards; "model.safetensors" in its repositories is of transformers.
OPEN_CLIP = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)


def form_of(names: Iterable[str], forms: Sequence[WeightForm]) -> WeightForm | None:
    """The first form of which `names` (of one folder) hold a whole network; None where there is none."""
    names = list(names)
    return next((form for form in forms if form.files(names)), None)


@dataclass(frozen=True)
class Part:
    """A network's folder within a repository ("" for the repository itself): its `configs` (patterns), and the forms of its weights.

    A row of `configs` is satisfied by any of its patterns. `optional` files are read where they are there. `forms` is empty for a folder
    without weights, and a row of names for OpenCLIP.
    """

    folder: str
    configs: tuple[tuple[str, ...], ...] = ()
    forms: tuple[WeightForm, ...] | tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def _within(self, names: Iterable[str]) -> list[str]:
        """The names of the files of this very folder, without it."""
        start = f"{self.folder}/" if self.folder else ""
        return [name[len(start) :] for name in names if name.startswith(start) and "/" not in name[len(start) :]]

    def weights(self, names: Iterable[str]) -> list[str]:
        """The weight files that are read, out of all names of the repository and without the folder; none where no form is whole."""
        own = self._within(names)
        for form in self.forms:
            if found := ([form] if form in own else []) if isinstance(form, str) else form.files(own):
                return found
        return []

    def missing(self, names: Sequence[str]) -> list[str]:
        """What is not among the names, in words: "unet/config.json", "t5/tokenizer.json or spiece.model", "weights in vae (...)"."""
        own = self._within(names)
        at = f"{self.folder}/" if self.folder else ""
        lacking = [at + " or ".join(row) for row in self.configs if not any(fnmatch(name, pattern) for name in own for pattern in row)]
        if self.forms and not self.weights(names):
            wanted = " or ".join(form if isinstance(form, str) else form.whole for form in self.forms if not getattr(form, "variant", None))
            there = [name for name in own if name.endswith((".safetensors", ".bin", ".pth", ".msgpack", ".h5", ".ckpt", ".onnx", ".gguf"))]
            lacking.append(f"{at}{wanted} (there is {', '.join(there[:3]) or 'no file of weights'})")
        return lacking

    def wanted(self, names: Sequence[str]) -> list[str]:
        """All files that are read, out of the names of the repository, with the folder."""
        own = self._within(names)
        patterns = [pattern for row in self.configs for pattern in row] + list(self.optional)
        files = [name for name in own if any(fnmatch(name, pattern) for pattern in patterns)] + self.weights(names)
        return [f"{self.folder}/{name}" if self.folder else name for name in dict.fromkeys(files)]


STABLE_DIFFUSION_PARTS = (
    Part("vae", (("config.json",),), DIFFUSERS),
    Part("unet", (("config.json",),), DIFFUSERS),
    Part("scheduler", (("scheduler_config.json",),)),
    Part("text_encoder", optional=("config.json",)),
    Part("tokenizer", optional=("special_tokens_map.json", "tokenizer_config.json")),
)
T5_PARTS = (
    Part(
        "",
        (("config.json",), ("tokenizer.json", "spiece.model")),
        TRANSFORMERS,
        ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    ),
)


def open_clip_part(file: str | None = None) -> Part:
    """OpenCLIP's repository; `file` is the name of the weights where OpenCLIP's list has another than usual, or safetensors beside it."""
    names = OPEN_CLIP if file is None else (f"{file.rpartition('.')[0]}.safetensors", file)
    return Part("", (), names, ("open_clip_config.json",))


OPEN_CLIP_PARTS = (open_clip_part(),)


def lacking(parts: Sequence[Part], names: Sequence[str]) -> list[str]:
    """What of the parts is not among the names of a repository's files."""
    return [what for part in parts for what in part.missing(names)]
