"""How two models become one, and what came of it."""
