"""What surrounds a load: process state, threads, a Hub, faults, memory, GPUs, model classes."""
