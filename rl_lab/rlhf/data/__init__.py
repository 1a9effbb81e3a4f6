"""What an RLHF experiment learns from: fetched or the user's own, cleaned, split and reported."""
