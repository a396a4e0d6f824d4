"""Modules that all stages use: errors, records, ONNX Runtime sessions, values, cache, formatting."""
