"""YAML text to a valid, frozen recipe: reading, the schema, layers, rules, and what to write instead."""
