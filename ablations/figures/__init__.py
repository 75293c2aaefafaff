"""Pictures for people: the diversity grid, contact sheets, curves, and how they are set."""
