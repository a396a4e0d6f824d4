"""HTTP/1.1 over kept connections, as the device speaks it."""
