"""Stage 6 of a cell: scores of pictures, of texts and of sets of candidates."""
