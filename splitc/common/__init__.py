"""What has no stage: errors, records, ONNX Runtime sessions, values, cache, formatting."""
