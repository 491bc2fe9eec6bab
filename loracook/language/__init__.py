"""How a recipe is read: what is behind source, schema and recipe."""
