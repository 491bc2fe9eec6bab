"""Rows as the trainer gets them: template, mask, tokens, packing, and what was counted."""
