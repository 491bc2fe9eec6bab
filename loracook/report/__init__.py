"""Pages about a run: the model card."""
