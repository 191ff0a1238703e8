"""A synthetic landscape whose land cover is known, and its map."""
