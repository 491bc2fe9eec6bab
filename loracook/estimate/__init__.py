"""What is known of a run before weights: parameters, rows, steps, memory and disk."""
