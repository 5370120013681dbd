"""One list of results, several renderings."""
