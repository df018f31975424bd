"""The report of a run: one self-contained HTML page, and the model card, out of the same data."""
