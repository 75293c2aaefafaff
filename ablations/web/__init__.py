"""The local page: refining prompts in a browser, and the diversity grids of runs side by side. `ablations.app` serves it."""
