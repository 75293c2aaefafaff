"""Sources of coarse-fine prompts: tables, folders, the tiny world."""
