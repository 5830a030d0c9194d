"""JSON answers that are filled value by value."""
