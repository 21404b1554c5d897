"""How a base model learns a domain, and how well it did."""
