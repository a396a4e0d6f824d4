"""The cloud side: tails of bundles, served over the Open Inference Protocol v2."""
