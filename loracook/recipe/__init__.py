"""From YAML text to a valid, frozen recipe: reading, schema, layers, rules, and suggestions for fixes."""
