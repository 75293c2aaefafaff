"""Frozen features, computed once for each picture and kept on disk."""
