"""Reading rows from the data: sources, formats, and which rows are used."""
