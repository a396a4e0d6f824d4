"""The cloud side: what it does of the cuts of bundles, served over the Open Inference Protocol v2."""
