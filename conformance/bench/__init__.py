"""How long a load takes and how much memory, of the reference, of stock and of their peers."""
