"""Detectors, losses, data, weights, training, quantization and ONNX export."""
