"""Baselines: other ways to write a prompt for a text-to-image model out of a coarse one, behind one interface (`base.Baseline`)."""
