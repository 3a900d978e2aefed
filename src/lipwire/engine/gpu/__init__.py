"""Networks on a GPU, in kernels of Lipwire's own and in ONNX Runtime. Imported where a GPU is asked
for, and not before.
"""
