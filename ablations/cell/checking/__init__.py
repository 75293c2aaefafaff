"""Stage 3 of a cell: manipulation checks, figures that say whether each treatment was delivered."""
