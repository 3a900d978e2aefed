"""From a network's ONNX file to graphs that run without its weights inside."""
