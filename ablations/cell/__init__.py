"""One cell, by its stages: loading, training, checking, refining, drawing, scoring. `cell.py` alone knows them all."""
