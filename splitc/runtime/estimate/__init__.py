"""What the device believes of itself, the link and the server, from what runs anyway."""
