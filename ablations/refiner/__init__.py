"""Refining prompts with a person or a stream of lines: what `ablations.refine` and the page share."""
