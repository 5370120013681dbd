"""Where the files of a checkpoint are: a folder, the Hub, a shard index."""
