"""How good a network is: scores, calibration, robustness, explanations, and what may be claimed of several runs."""
