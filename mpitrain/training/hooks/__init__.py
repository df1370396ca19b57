"""What happens between steps, one thing a file."""
