"""What a cell leaves behind: folders, locks, provenance, prompts.jsonl, scores.parquet, W&B."""
