"""How many seeds, prompts and candidates a claim needs: variances from finished cells, what designs can decide, and its registration."""
