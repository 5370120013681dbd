"""The conformance suite: holds any loader against the specification of `from_pretrained`."""
