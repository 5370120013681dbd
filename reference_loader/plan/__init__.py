"""Every decision of a load, as data, taken before a weight is read."""
