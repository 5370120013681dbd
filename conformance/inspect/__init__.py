"""Look at a checkpoint without loading it: footprint, faults of the folder, remote headers, load records."""
