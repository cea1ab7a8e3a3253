"""Where data come from, how they are prepared, and who holds which samples."""
