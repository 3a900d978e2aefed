"""Networks in ONNX Runtime on a GPU."""
