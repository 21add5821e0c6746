"""From an engine and images to COCO accuracy, an operating point, fidelity and per-image matches."""
