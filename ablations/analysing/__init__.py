"""Studies of finished runs: alignment, prompt lengths, the refiner against its controls."""
