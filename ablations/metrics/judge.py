"""The judge: the CLIP model whose embeddings the scores of pictures use, which is another one than is trained and draws.

L_clip pulls the trained encoder into the joint space of the profile's OpenCLIP, and the same model tells the UNet what to draw: its
opinion of the pictures would praise what agrees with it. The tiny profile's judge is an OpenCLIP of the same size from another seed, on
captions and pictures of its own (`python -m ablations.pretrain_tiny judge`); it has read no world's pairing of words.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).with_name("tiny_judge_clip.safetensors")
