"""What this machine has for mm1, and what will be slow on it."""
