"""What a loader must know of a model class, and how it builds an empty model."""
