"""Plans, and which application may call which service on which of them."""
