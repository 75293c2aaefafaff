"""Stage 4 of a cell: every evaluation prompt under every condition."""
