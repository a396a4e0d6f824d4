"""The messages between device and cloud, as both sides write and read them."""
