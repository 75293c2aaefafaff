"""Where the networks of the paper profile come from, by name. Loads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import open_clip

from lightning_modules.published import IMAGE_MODEL, OPEN_CLIP


@dataclass(frozen=True)
class PaperSources:
    """Which networks: hub ids `OWNER/NAME` or `OWNER/NAME@REVISION`, and an OpenCLIP model as `NAME/TAG` or `NAME/TAG@REVISION`, as its
    own list has it.

    The image model is a mirror, see `published`.
    """

    image_model: str = IMAGE_MODEL
    open_clip: str = OPEN_CLIP
    t5: str = "google-t5/t5-base"

    @classmethod
    def named(cls, image_model: str | None = None, open_clip: str | None = None, t5: str | None = None) -> PaperSources:
        """The sources of these names; None is the paper's own."""
        return cls(image_model or cls.image_model, open_clip or cls.open_clip, t5 or cls.t5)

    def __str__(self) -> str:
        return f"backbones.image_model={self.image_model} and backbones.open_clip={self.open_clip}"

    @property
    def open_clip_name(self) -> str:
        return self.open_clip.partition("/")[0]

    @property
    def open_clip_tag(self) -> str:
        return self.open_clip.partition("@")[0].partition("/")[2]

    @property
    def open_clip_listed(self) -> Mapping[str, Any]:
        """What OpenCLIP's list says of the weights; empty for what it does not list."""
        return open_clip.get_pretrained_cfg(self.open_clip_name, self.open_clip_tag) or {}

    @property
    def open_clip_repository(self) -> str | None:
        """The hub's repository of the weights with the revision, as OWNER/NAME@REVISION; None for weights of a plain address."""
        repository = self.open_clip_listed.get("hf_hub", "").rpartition("/")[0]
        revision = self.open_clip.partition("@")[2]
        return f"{repository}@{revision}" if repository and revision else repository or None

    @property
    def open_clip_file(self) -> str | None:
        """The weights' name in that repository, where it is not one of OpenCLIP's usual names."""
        return self.open_clip_listed.get("hf_hub", "").rpartition("/")[2] or None

    @property
    def quick_gelu(self) -> bool:
        """Whether the weights of the tag were trained with QuickGELU, as OpenAI's were."""
        return bool(self.open_clip_listed.get("quick_gelu", False))

    def check_open_clip(self) -> None:
        """Raises ValueError for a model or tag that OpenCLIP does not list."""
        name, tag = self.open_clip_name, self.open_clip_tag
        if name not in open_clip.list_models():
            example = PaperSources.open_clip.partition("@")[0]
            raise ValueError(f"backbones.open_clip={self.open_clip}: OpenCLIP has no model {name!r}; write MODEL/TAG as in {example}")
        tags = open_clip.list_pretrained_tags_by_model(name)
        if tag not in tags:
            raise ValueError(f"backbones.open_clip={self.open_clip}: {name} has no weights {tag!r}; it has {', '.join(tags) or 'none'}")
