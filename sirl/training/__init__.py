"""SIRL training: GRPO through TRL, extended at its public seams."""
