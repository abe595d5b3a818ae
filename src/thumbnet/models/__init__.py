"""Network architectures, one complete file each; `registry.py` finds them by name."""
