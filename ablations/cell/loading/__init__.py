"""Stage 1 of a cell: networks and data."""
