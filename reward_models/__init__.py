"""What turns behaviour into a number. Knows nothing of rl_lab."""
