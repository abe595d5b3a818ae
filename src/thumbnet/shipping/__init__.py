"""Trained networks in use: classifiers in Python, exported files, a folder to hand on, a server."""
