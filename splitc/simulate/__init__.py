"""Many devices and one cloud, by the clock of a computer: how policies compare before anything is bought."""
