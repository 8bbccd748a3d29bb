"""What callers say of answers, by the ids of their requests."""
