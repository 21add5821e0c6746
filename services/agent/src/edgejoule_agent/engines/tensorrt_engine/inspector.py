"""What an engine really runs in, read from the layer list of TensorRT's engine inspector. Pure functions of its JSON.

The list has no schema of its own; what is known of it:

- With any verbosity but DETAILED the layers are names, strings alone (documentation, Engine Inspector).
- With DETAILED they are objects with Name, LayerType, Inputs and Outputs, whose tensors have Name, Dimensions and
  "Format/Datatype", a sentence such as "Thirty-two wide channel vectorized row major Int8 format" or "Row major linear
  FP32" (same page; NVIDIA/TensorRT tools/experimental/trt-engine-explorer, trex/activations.py), in later releases of
  10 a word such as "Half". From 11.0 on the type stands apart, as "DataType" (documentation, Migrating IEngineInspector
  Usage from TensorRT 10.x to 11.x).
- A layer computes in the type of its first input (trt-engine-explorer, trex/layer.py), reformats excepted.
- From 8.6 on "Metadata" names the ONNX nodes in a layer, "[ONNX Layer: NAME]" each, apart by the control characters
  1e and 1f (ILayer.metadata). Before, only the layer's name tells: "a + b", "a || b", "PWN(a, b)",
  "{ForeignNode[first...last]}"; what lies between first and last is not told.
- Copies between formats have LayerType Reformat and names that begin "Reformatting CopyNode for".
"""

import json
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from edgejoule_agent.errors import EngineError

INT8, FP16, FP32 = "int8", "fp16", "fp32"
IDLE_KINDS = ("Reformat", "NoOp", "Constant", "Shuffle", "Identity")  # they compute nothing
TYPES = (  # the first that is found in the text; lower case
    ("uint8", "uint8"),
    ("bf16", "bf16"),
    ("bfloat16", "bf16"),
    ("fp8", "fp8"),
    ("int8", INT8),
    ("half", FP16),
    ("fp16", FP16),
    ("float16", FP16),
    ("fp32", FP32),
    ("float", FP32),
    ("int32", "int32"),
    ("int64", "int64"),
    ("bool", "bool"),
)
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_JOINTS = re.compile(r"\s+\+\s+|\s+\|\|\s+|PWN\(|,\s*|[()]|\{ForeignNode\[|\.\.\.|\]\}")


class Layer(NamedTuple):
    """One layer of an engine; types are None where the inspector does not tell."""

    name: str
    kind: str
    nodes: Tuple[str, ...]  # of the ONNX graph, as far as they are told
    inputs: Tuple[Optional[str], ...]
    outputs: Tuple[Optional[str], ...]

    @property
    def precision(self) -> Optional[str]:
        """What it computes in."""
        return self.inputs[0] if self.inputs else None

    @property
    def is_reformat(self) -> bool:
        return self.kind == "Reformat" or self.name.startswith("Reformatting CopyNode")


class Inspection(NamedTuple):
    """What an engine was found to be; shares are of the graph's MACs, 0-1."""

    shares: Optional[Dict[str, float]]  # by precision; None where not every MAC has a layer that is known
    shares_absent: str  # why None
    precisions: Tuple[str, ...]  # of all that computes, decoding excepted: int8, fp16, fp32 as far as they occur
    reformat_layers: int
    decode_wrong: Tuple[str, ...]  # layers with decoding in them whose results are not float32
    decode_unknown: Tuple[str, ...]  # nodes of decoding that no layer is known to hold


def read_layers(text: str, nodes: Iterable[str]) -> List[Layer]:
    """The layers in the JSON of ``get_engine_information``.

    Args:
        nodes: names of the ONNX graph's nodes (``graph.name_nodes``).

    Raises:
        EngineError: it is no such JSON.
    """
    known = set(nodes)
    try:
        layers = json.loads(text)["Layers"]
        return [_layer({"Name": layer} if isinstance(layer, str) else layer, known) for layer in layers]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"TensorRT's engine inspector gave no layer list ({text[:80]!r})") from error


def inspect(layers: List[Layer], macs: Mapping[str, int], decode: Iterable[str]) -> Inspection:
    """Shares of compute, reformats and the precision of decoding.

    A layer's MACs are those of the ONNX nodes in it (``macs.macs_by_node``).
    """
    computing = [layer for layer in layers if not layer.is_reformat]
    shares, why = _shares(computing, macs)
    wanted = set(decode)
    holders = [layer for layer in computing if wanted.intersection(layer.nodes)]
    wrong = [layer.name for layer in holders if any(kind in (FP16, INT8, "bf16", "fp8") for kind in layer.outputs)]
    held = {node for layer in holders if layer.outputs and None not in layer.outputs for node in layer.nodes}
    ordinary = [layer for layer in computing if layer.kind not in IDLE_KINDS and not wanted.intersection(layer.nodes)]
    found = {layer.precision for layer in ordinary}
    return Inspection(
        shares=shares,
        shares_absent=why,
        precisions=tuple(precision for precision in (INT8, FP16, FP32) if precision in found),
        reformat_layers=len(layers) - len(computing),
        decode_wrong=tuple(wrong),
        decode_unknown=tuple(sorted(wanted - held)),
    )


def data_type(tensor: Mapping[str, Any]) -> Optional[str]:
    """A tensor's type, from either form.

    >>> data_type({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"})
    'fp16'
    >>> data_type({"Format": "Row major linear format (kLINEAR)", "DataType": "Float"})
    'fp32'
    """
    told = {key.lower(): str(value).lower() for key, value in tensor.items()}  # DataType, Datatype: both are seen
    text = told.get("datatype") or told.get("format/datatype") or ""
    return next((kind for word, kind in TYPES if word in text), None)


def _layer(told: Mapping[str, Any], known: Iterable[str]) -> Layer:
    name = told["Name"]
    named = _METADATA.findall(told.get("Metadata") or "") or _JOINTS.split(name)
    return Layer(
        name=name,
        kind=told.get("LayerType", ""),
        nodes=tuple(node for node in dict.fromkeys(named) if node in known),
        inputs=tuple(data_type(tensor) for tensor in told.get("Inputs", ())),
        outputs=tuple(data_type(tensor) for tensor in told.get("Outputs", ())),
    )


def _shares(layers: List[Layer], macs: Mapping[str, int]) -> Tuple[Optional[Dict[str, float]], str]:
    """Share of MACs by precision; None and why, when a node with MACs is in no layer or in layers that differ."""
    total = sum(macs.values())
    by_precision = dict.fromkeys((INT8, FP16, FP32), 0)
    lost: Dict[str, int] = {}
    for node, count in macs.items():
        found = {layer.precision for layer in layers if node in layer.nodes}
        precision = found.pop() if len(found) == 1 else None
        if precision in by_precision:
            by_precision[precision] += count
        elif count:
            lost[node] = count
    if lost or not total:
        share = sum(lost.values()) / total if total else 1.0
        example = next(iter(lost), "none")
        return None, f"the inspector does not tell the layer or type of {share:.0%} of the MACs (such as {example})"
    return {precision: count / total for precision, count in by_precision.items()}, ""
