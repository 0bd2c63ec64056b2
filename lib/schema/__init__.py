"""What a manifest may hold: reading, parsing and checking it."""
