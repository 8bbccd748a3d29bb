"""What buyers say of a listing they have paid for, what its provider answers, and what that comes to."""
