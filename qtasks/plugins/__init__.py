"""First-party plugins: ordinary ones, with no private door."""
