"""What an evaluation measures: metrics, models compared row by row, and the gates that a recipe sets."""
