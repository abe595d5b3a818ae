"""Studies and sweeps: many runs planned, carried out, resumed and judged."""
