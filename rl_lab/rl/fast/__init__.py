"""SB3's algorithms, made faster; each is proven equal to SB3's own."""
