"""The environments of transformers releases, and loads observed inside them."""
