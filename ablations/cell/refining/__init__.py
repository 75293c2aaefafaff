"""Stage 3 of a cell: every evaluation prompt under every condition."""
