"""What a result may be taken to say."""

from __future__ import annotations

TINY_WORLD_NOTE = "tiny world: claims nothing about Stable Diffusion 2.1"
