"""From an ONNX file to a graph of units."""
