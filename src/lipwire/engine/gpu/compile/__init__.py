"""From a network's ONNX file to graphs in half or single precision for GPUs, and their weights."""
