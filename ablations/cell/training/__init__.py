"""Stage 2 of a cell: one training, in one process or in several."""
