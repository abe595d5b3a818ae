"""The run folder: what one training writes, and how it is found and read again."""
