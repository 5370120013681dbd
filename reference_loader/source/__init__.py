"""Locating the files of a checkpoint: a folder, the Hub, a shard index."""
