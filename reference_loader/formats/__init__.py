"""What a file of a checkpoint holds: safetensors, pickle or a state dict, with one interface."""
