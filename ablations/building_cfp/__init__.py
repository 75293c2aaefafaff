"""The parts of `python -m ablations.build_cfp`: prompts in, three stages of frozen models, a table out.

- prompts.py: reads lists of prompts
- folder.py: what lies where in the folder that is built, and what it was begun with
- ledger.py: which prompts are done, append-only, one file per stage and shard
- stages.py: runs a stage: what is left, forecast, progress
- drawing.py: the stage `images`; prompt_chunks.py: prompts that are longer than the text encoder's context
- texts.py: the stages `coarse` and `nsfw`
- sources.py, models.py: where models come from, and loading them
- table.py: the stage `table`
"""
