"""What a private tensor means for cuts, and how much each cut tells of it."""
