"""How each kind of step goes from ready to ended."""
