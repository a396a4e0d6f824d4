"""What a compile leaves behind, and what device and cloud read: manifest, folder, decisions, programs of parts."""
