"""A cell in several processes: which this one is, how they meet, and what they do together."""
