"""Rows as they stand in the data: sources, formats, and which of them are used."""
