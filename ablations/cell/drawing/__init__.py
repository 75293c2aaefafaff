"""Stage 4 of a cell: pictures of texts."""
