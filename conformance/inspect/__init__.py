"""Look at a checkpoint without loading it: its footprint, faults, headers, load records."""
