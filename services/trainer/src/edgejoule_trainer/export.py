"""A detector as an ONNX graph under the engine contract, with its manifest inside.

The batch is fixed, at 1 unless more is asked for: boards build engines for one frame at a time, TensorRT 8.2
optimizes static shapes best, and the box decoder's cells then are constants.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import onnx
import onnxslim
import torch

from edgejoule.canonical import canonical_json
from edgejoule.records import ModelManifest
from edgejoule_trainer.detectors import Detector
from edgejoule_trainer.quantize.lint import INPUT, METADATA_KEY, OPSET, OUTPUTS, check


def export_onnx(
    detector: Detector, path: Path, manifest: ModelManifest | None = None, batch: int = 1
) -> onnx.ModelProto:
    """Write ``detector`` to ``path``: input ``image``, outputs ``boxes`` and ``scores``; equal weights, equal bytes.

    A quantized network becomes QuantizeLinear and DequantizeLinear pairs, in front of float weights too: TensorRT 8.2
    wants a convolution's weights to be initializers and quantizes them itself when it builds.

    Args:
        manifest: what goes into the metadata, when not ``detector.manifest()``: a quantized detector has its batch
            norm folded, so its parameters and operations are those of the float one.
        batch: images that one inference takes; what comes out of an image does not depend on the others.

    Raises:
        ModelError: the graph would not run on a board as it should; see ``quantize.lint``.
    """
    height, width = detector.input_size
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but torch's newer one cannot write opset 13.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            detector.eval(),
            (torch.zeros(batch, 3, height, width),),
            buffer,  # type: ignore[arg-type]  # without dynamo a file object will do
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
        )
    model = onnxslim.slim(onnx.load_from_string(buffer.getvalue()))
    del model.metadata_props[:]
    manifest = manifest or detector.manifest()
    model.metadata_props.add(key=METADATA_KEY, value=canonical_json(manifest.model_dump(mode="json")))
    onnx.checker.check_model(model)
    check(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return model
