"""One cell, by its stages: loading, training, refining, drawing, scoring. `cell.py` alone knows them all."""
