"""Stage 5 of a cell: pictures of texts."""
