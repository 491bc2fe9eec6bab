"""Rows as the trainer gets them: chat template, loss mask, tokens, packing and statistics."""
