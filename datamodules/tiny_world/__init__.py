"""The embedded data: a prompt grammar and a renderer, so that words decide pixels and every truth is known."""
