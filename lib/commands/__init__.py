"""The commands beside ``start``, and which bottles there are for them."""
