"""What surrounds a load: process state, threads, a local Hub, faults, memory, GPUs, user model classes."""
