"""Recipes as text: the effective one, one key of it, two of them side by side."""
