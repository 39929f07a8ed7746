"""The table of [L20]: image networks, plain and mean-field, row by row."""
