"""A tiny checkpoint of every model type that the installed transformers knows, made by rule."""
