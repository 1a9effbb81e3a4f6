"""What a terminal shows of runs, read from their directories alone."""
