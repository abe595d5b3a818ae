"""From files to batches: readers, downloads, the cache of converted sets, and the splits that training draws from."""
