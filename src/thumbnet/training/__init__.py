"""From batches to weights: the loop and what it calls."""
