"""A stand-in for the module ``tensorrt``, generated from the names that each release's bindings really have.

``tests/fixtures/tensorrt_names.json`` says which classes, methods, arguments, properties and enum values a release
has, and nothing else can be called, set or named here: it fails as there (AttributeError, TypeError). What is not in
that file (constructors, ILogger, defaults of arguments, overloads) is in ``make``, OPTIONAL and ONE_OF, from NVIDIA's
Python API pages.

Behind the names: an ONNX file is parsed for real, an "engine" is that file with the configuration, and it runs by ONNX
Runtime on the addresses that the execution context was given, taken for host memory (see ``cudart_double.c``). So
buffers, shapes, types and streams are really exercised. Numbers are those of the graph as it is; which layer "runs" in
which precision, and which are fused, is made up after the flags and constraints, for the inspector to tell. Nothing
here says how fast or how exact TensorRT is.

``make(release, world)`` gives the module; a file that calls ``install(globals())`` is one to import in a child process,
where the environment variable TENSORRT_DOUBLE holds the release and the world as JSON. Python 3.6 can read it.
"""

import ctypes
import enum
import importlib
import json
import os
import re
import sys
import types

import numpy as np

NAMES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fixtures", "tensorrt_names.json")
with open(NAMES, encoding="utf-8") as _file:
    TABLE = json.load(_file)
RELEASES = TABLE["releases"]
VERSIONS = {  # full versions, as tensorrt.__version__ tells them; 8.2.1.8 is JetPack 4.6.1's, 8.5.2.2 JetPack 5.1's
    "8.2": "8.2.1.8",
    "8.4": "8.4.1.5",
    "8.5": "8.5.2.2",
    "8.6": "8.6.2",
    "10.0": "10.0.1",
    "10.3": "10.3.0",
    "10.7": "10.7.0.23",
    "10.13": "10.13.3.9",
    "10.16": "10.16.0",
    "11.1": "11.1.0",
}
# arguments with defaults; Python API pages of the classes
OPTIONAL = {
    ("Builder", "create_network"): {"flags": 0},
    ("Builder", "build_serialized_network"): {"kernel_text": False},
    ("OnnxParser", "parse"): {"path": None},
    ("Runtime", "deserialize_cuda_engine"): {"stream_reader": None, "stream_reader_v2": None},
    ("IExecutionContext", "execute_async_v2"): {"input_consumed": None},
}
# overloads: by index or by name
ONE_OF = {("ICudaEngine", name) for name in ("binding_is_input", "get_binding_dtype", "get_binding_shape")}
ENUM_VALUES = {  # where the number matters; NvInferRuntimeBase.h, NvInfer.h
    "NetworkDefinitionCreationFlag": {
        "EXPLICIT_BATCH": 0,
        "EXPLICIT_PRECISION": 1,
        "STRONGLY_TYPED": 1,
        "PREFER_JIT_PYTHON_PLUGINS": 2,
        "PREFER_AOT_PYTHON_PLUGINS": 3,
    },
}
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
MAGIC = b"tensorrt double\n"
WEIGHTED = ("Conv", "Gemm", "MatMul")


class World:
    """What the GPU and its driver would decide: capabilities, free memory, and quirks to be tested."""

    def __init__(self, **told):
        self.fast_fp16 = True
        self.fast_int8 = True
        self.memory_bytes = 8 * 10**9  # a workspace over this: out of memory
        self.ignores_constraints = False  # as some releases do with fused layers
        self.no_gpu = False
        self.cache_hardware = "one"  # a timing cache of another is refused
        self.no_contexts = []  # which of an engine's execution contexts do not fit, counted from 1
        self.killed = False  # the kernel ends the process while it builds
        for name, value in told.items():
            if name not in self.__dict__:
                raise TypeError("the world has no " + name)
            setattr(self, name, value)


def has(release, where):
    """Whether ``where`` ("8.2-8.6 10.0") names the release."""
    index = RELEASES.index(release)
    for part in where.split():
        first, _, last = part.partition("-")
        if RELEASES.index(first) <= index <= RELEASES.index(last or first):
            return True
    return False


def members(release, name):
    """Member -> what (arguments in brackets, property, value) of one class at one release."""
    found = {}
    for member, told in TABLE["api"][name].items():
        for what, where in zip(told[::2], told[1::2]):
            if has(release, where):
                found[member] = what
    return found


def make(release, world=None):
    """The module ``tensorrt`` of a release."""
    module = types.ModuleType("tensorrt")
    module.__version__ = VERSIONS[release]
    module.world = world or World()
    module.release = release
    for name in TABLE["api"]:
        found = members(release, name)
        if not found:
            continue
        if name == "(module)":
            for member in found:
                setattr(module, member, _not_played(member))
        elif set(found.values()) == {"value"}:
            values = ENUM_VALUES.get(name, {})
            numbers = {member: values.get(member, place) for place, member in enumerate(found)}
            setattr(module, name, enum.IntEnum(name, numbers))
        else:
            setattr(module, name, _class(module, name, found))
    severity = enum.IntEnum("Severity", {name: number for number, name in enumerate(SEVERITIES)})
    # ILogger has these in every release: python/src/infer/pyCore.cpp
    extras = {"Severity": severity, "__init__": lambda self: None, "log": lambda self, severity, msg: None}
    module.ILogger = type("ILogger", (), dict(extras, **severity.__members__))
    printer = {"__init__": lambda self, min_severity: None, "log": lambda self, severity, msg: sys.stderr.write(msg)}
    module.Logger = type("Logger", (module.Logger, module.ILogger), printer)  # in the same file
    return module


def install(namespace):
    """Make the module that is being imported the double that the environment names."""
    told = json.loads(os.environ["TENSORRT_DOUBLE"])
    namespace.update(vars(make(told.pop("release"), World(**told))))


def _not_played(name):
    def method(*_):
        raise NotImplementedError("the double has the name {} but plays nothing behind it".format(name))

    return method


def _class(module, name, found):
    plays = PLAYS.get(name, {})
    properties = {member for member, what in found.items() if what == "property"}

    def set_attribute(self, attribute, value):
        if attribute not in properties and not attribute.startswith("_"):
            raise AttributeError("'tensorrt.{}' object has no attribute '{}'".format(name, attribute))
        object.__setattr__(self, attribute, value)

    body = {"__setattr__": set_attribute, "_trt": module}
    for member, what in found.items():
        if what == "property":
            continue
        arguments = [part for part in what.strip("()").split(", ") if part]
        body[member] = _method(name, member, arguments, plays.get(member) or _not_played(member))
    for member, play in plays.items():  # private helpers and construction
        if member.startswith("_") and member not in found:
            body[member] = play
    return type(name, (), body)


def _method(owner, name, arguments, play):
    """A method that takes these arguments and no others, by place or by name."""
    defaults = OPTIONAL.get((owner, name), {})

    def overloaded(self, *given, **named):
        if len(given) + len(named) != 1 or not set(named) <= set(arguments):
            raise TypeError("{}(): incompatible function arguments".format(name))
        return play(self, *given, *named.values())

    if (owner, name) in ONE_OF:
        return overloaded

    def method(self, *given, **named):
        if len(given) > len(arguments):
            raise TypeError("{}(): incompatible function arguments: {} given".format(name, len(given)))
        values = dict(zip(arguments, given))
        for key, value in named.items():
            if key not in arguments or key in values:
                raise TypeError("{}(): incompatible function arguments: {}".format(name, key))
            values[key] = value
        for key in arguments:
            if key not in values:
                if key not in defaults:
                    raise TypeError("{}(): incompatible function arguments: {} is missing".format(name, key))
                values[key] = defaults[key]
        return play(self, **values)

    return method


# --- what is played behind the names -------------------------------------------------------------


def _error(log, trt, text):
    log.log(trt.ILogger.ERROR, text)


def _host_memory(trt, content):
    """IHostMemory; a class in Python before 3.12 can have the buffer protocol only by inheritance."""
    return type("IHostMemory", (bytes,), {"nbytes": property(len)})(content)


def builder_init(self, logger):
    if self._trt.world.no_gpu:
        _error(logger, self._trt, "CUDA initialization failure with error: 100")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    self._log = logger
    if "platform_has_fast_int8" in members(self._trt.release, "Builder"):
        object.__setattr__(self, "platform_has_fast_int8", self._trt.world.fast_int8)
        object.__setattr__(self, "platform_has_fast_fp16", self._trt.world.fast_fp16)


def create_network(self, flags):
    network = self._trt.INetworkDefinition()
    creation = self._trt.NetworkDefinitionCreationFlag.__members__
    bit = lambda name: name in creation and bool(flags >> int(creation[name]) & 1)  # noqa: E731
    network._explicit = bit("EXPLICIT_BATCH") or self._trt.release.startswith("1")
    network._typed = bit("STRONGLY_TYPED") or self._trt.release.startswith("11")
    network._log = self._log
    object.__setattr__(network, "num_layers", 0)
    return network


def get_layer(self, index):
    return self._layers[index]


def parser_init(self, network, logger):
    self._network, self._log, self._errors = network, logger, []
    object.__setattr__(self, "num_errors", 0)


def parse(self, model, path):
    trt, network = self._trt, self._network
    onnx, shape_inference = (importlib.import_module(name) for name in ("onnx", "onnx.shape_inference"))
    if not network._explicit:
        return _parse_error(self, "INVALID_GRAPH", "", "explicit batch is required for ONNX")
    graph_model = onnx.load_model_from_string(model)
    rows = TABLE["onnx"]["opset"]
    row = {"10.0": "10.1", "10.3": "10.1"}.get(trt.release, trt.release if trt.release in rows else "main")
    if graph_model.opset_import[0].version > rows[row]:
        return _parse_error(self, "INVALID_GRAPH", "", "opset {}".format(graph_model.opset_import[0].version))
    operators = TABLE["onnx"]["operators"]
    for node in graph_model.graph.node:
        where = operators.get(node.op_type, "")
        if where != "all" and row not in where.split():
            return _parse_error(self, "UNSUPPORTED_NODE", node.name, "No importer registered for op: " + node.op_type)
    graph_model = shape_inference.infer_shapes(graph_model)
    network._model, network._layers = graph_model, []
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph_model.graph.value_info}
    kinds.update({value.name: value.type.tensor_type.elem_type for value in graph_model.graph.output})
    network._kinds = kinds
    for number, node in enumerate(graph_model.graph.node):
        if len(node.input) > 1 and node.op_type in ("Mul", "Add"):  # constants become layers of their own
            network._layers.append(_new_layer(trt, "(Unnamed Layer* {}) [Constant]".format(number), None, ["FLOAT"]))
        types = [_data_type(kinds.get(name, 1)) for name in node.output]
        network._layers.append(_new_layer(trt, node.name, node, types))
    object.__setattr__(network, "num_layers", len(network._layers))
    return True


def _parse_error(parser, code, node, text):
    error = parser._trt.ParserError()
    error._told = (getattr(parser._trt.ErrorCode, code), node, text)
    parser._errors.append(error)
    object.__setattr__(parser, "num_errors", len(parser._errors))
    return False


def _data_type(element_type):
    return {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT32", 9: "BOOL"}[element_type]


def _new_layer(trt, name, node, types):
    layer = trt.ILayer()
    layer._node, layer._outputs, layer._asked = node, [], {}
    object.__setattr__(layer, "name", name)
    object.__setattr__(layer, "num_outputs", len(types))
    for kind in types:
        tensor = trt.ITensor()
        object.__setattr__(tensor, "dtype", getattr(trt.DataType, kind))
        object.__setattr__(tensor, "is_shape_tensor", kind == "INT32")
        layer._outputs.append(tensor)
    return layer


def set_output_type(self, index, dtype):
    if self._outputs[index].dtype != self._trt.DataType.FLOAT:
        raise RuntimeError("the output of {} cannot become {}".format(self.name, dtype))
    self._asked[index] = dtype


def config_init(self):
    self._flags, self._cache = {"TF32"}, None
    for name in ("avg_timing_iterations", "min_timing_iterations", "max_workspace_size", "profiling_verbosity"):
        object.__setattr__(self, name, None)
    self._pool = None


def set_memory_pool_limit(self, pool, pool_size):
    if pool == self._trt.MemoryPoolType.WORKSPACE:
        self._pool = pool_size


def create_timing_cache(self, serialized_timing_cache):
    cache = self._trt.ITimingCache()
    cache._content = bytes(serialized_timing_cache)
    return cache


def set_timing_cache(self, cache, ignore_mismatch):
    fits = not cache._content or cache._content.split(b"|")[0] == self._trt.world.cache_hardware.encode()
    if fits or ignore_mismatch:
        self._cache = cache
    return fits or ignore_mismatch


def serialize_cache(self):
    entries = self._content or self._trt.world.cache_hardware.encode() + b"|"
    return _host_memory(self._trt, entries + b"entry;")


def build_serialized_network(self, network, config, kernel_text=False):
    trt, world, log = self._trt, self._trt.world, self._log
    nodes = network._model.graph.node
    quantized = any(node.op_type == "QuantizeLinear" for node in nodes)
    halves = any(kind == 10 for kind in network._kinds.values())
    if world.killed:
        os.kill(os.getpid(), 9)
    if quantized and not world.fast_int8:  # NVIDIA/TensorRT issue 3399
        _error(
            log,
            trt,
            "9: [standardEngineBuilder.cpp::buildEngine::1631] Error Code 9: Internal Error (Networks with "
            "QuantizeLayer/DequantizeLayer layers require hardware with Int8 support.)",
        )
        return None
    if not network._typed:
        for flag, present, word in (("INT8", quantized, "int8"), ("FP16", halves, "fp16")):
            if present and flag not in config._flags:  # NVIDIA/TensorRT issue 1823
                text = "Error Code 4: Internal Error ({} precision has been set for a layer or layer output, but "
                _error(log, trt, "4: [network.cpp::validate::2787] " + text.format(word) + word + " is not configured)")
                return None
    workspace = config._pool if config._pool is not None else config.max_workspace_size
    if workspace is None or workspace > world.memory_bytes:  # NVIDIA/TensorRT issue 2643
        log.log(
            trt.ILogger.WARNING, "Requested amount of GPU memory ({} bytes) could not be allocated.".format(workspace)
        )
        _error(
            log,
            trt,
            "2: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)",
        )
        return None
    layers = _choose(network, config, world)
    if world.ignores_constraints and "OBEY_PRECISION_CONSTRAINTS" in config._flags:  # NVIDIA/TensorRT issue 2407
        log.log(
            trt.ILogger.WARNING,
            "No implementation of layer x obeys the requested constraints in strict mode. No conforming implementation "
            "was found i.e. requested layer computation precision and output precision types are ignored, using the "
            "fastest implementation.",
        )
    told = {
        "release": trt.release,
        "detailed": config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED,
        "flags": sorted(config._flags),
        "workspace": workspace,
        "avg_timing_iterations": config.avg_timing_iterations,
        "min_timing_iterations": config.min_timing_iterations,
        "layers": layers,
    }
    header = json.dumps(told).encode()
    content = MAGIC + str(len(header)).encode() + b"\n" + header + network._model.SerializeToString()
    return _host_memory(trt, content)


def _choose(network, config, world):
    """[nodes, kind, input precision, output precision] of each fused layer, reformats between them."""
    trt, typed = network._trt, network._typed
    makers = {output: node for node in network._model.graph.node for output in node.output}
    asked = {layer._node.name: layer for layer in network._layers if layer._node is not None}
    obeys = not world.ignores_constraints and "OBEY_PRECISION_CONSTRAINTS" in config._flags

    def computes_in(node):
        before = [makers[name].op_type for name in node.input[:2] if name in makers]
        may = typed or "INT8" in config._flags
        if may and node.op_type in WEIGHTED and "DequantizeLinear" in before:
            return "int8"
        kind = network._kinds.get(node.output[0], 1)
        if kind not in (1, 10):
            return "int32"
        if typed:
            return "fp16" if kind == 10 else "fp32"
        layer = asked[node.name]
        precision = getattr(layer, "precision", None) if obeys else None
        if precision == trt.DataType.FLOAT or "FP16" not in config._flags:
            return "fp32"
        return "fp16"

    layers, precision_of, waiting = [], {}, []
    for node in network._model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            waiting.append(node.name)
            source = node.input[0]
            precision_of[node.output[0]] = "int8" if node.op_type == "QuantizeLinear" else precision_of.get(source)
            continue
        precision = computes_in(node)
        fuses = (
            node.op_type in ("Relu", "Clip")
            and layers
            and layers[-1]["kind"] == "CaskConvolution"
            and node.input[0] in layers[-1]["results"]
        )
        if fuses:
            layers[-1]["nodes"].append(node.name)
            layers[-1]["results"] = list(node.output)
            precision_of[node.output[0]] = layers[-1]["output"]
            continue
        result = precision
        if precision == "int8":  # an INT8 kernel may give what comes next
            result = "fp16" if "FP16" in config._flags else "fp32"
        graph_input = node.input and node.input[0] == "image"
        source = "fp32" if graph_input else precision_of.get(node.input[0] if node.input else "", precision)
        if source not in (None, precision) and precision in ("int8", "fp16", "fp32"):
            name = "Reformatting CopyNode for Input Tensor 0 to " + node.name
            layers.append(_layer_of([], "Reformat", source, precision, [], name))
        kind = "CaskConvolution" if node.op_type == "Conv" else "PointWiseV2"
        if node.op_type in ("Reshape", "Transpose"):
            kind = "Shuffle"
        fused = [name for name in waiting if node.op_type in WEIGHTED] + [node.name]
        waiting = []
        layers.append(_layer_of(fused, kind, precision, result, list(node.output), ""))
        for output in node.output:
            precision_of[output] = result
    return layers


def _layer_of(nodes, kind, source, result, results, name):
    return {"nodes": nodes, "kind": kind, "input": source, "output": result, "results": results, "name": name}


def runtime_init(self, logger):
    if self._trt.world.no_gpu:
        raise TypeError("pybind11::init(): factory function returned nullptr")
    self._log = logger


def deserialize_cuda_engine(self, serialized_engine, stream_reader=None, stream_reader_v2=None):
    trt, content = self._trt, bytes(serialized_engine)
    told = None
    if content.startswith(MAGIC):
        length, _, rest = content[len(MAGIC) :].partition(b"\n")
        told, model = json.loads(rest[: int(length)].decode()), rest[int(length) :]
    if told is None or told["release"] != trt.release:  # NVIDIA/TensorRT issue 2195
        _error(
            self._log,
            trt,
            "1: [stdArchiveReader.cpp::StdArchiveReader::35] Error Code 1: Serialization (Serialization assertion "
            "stdVersionRead == serializationVersion failed.Version tag does not match.)",
        )
        return None
    engine = trt.ICudaEngine()
    engine._told, engine._log, engine._model, engine._played = told, self._log, model, None
    engine._contexts = 0
    for name, value in (
        ("num_bindings", 3),
        ("num_io_tensors", 3),
        ("device_memory_size", 4096),
        ("device_memory_size_v2", 4096),
    ):
        if name in members(trt.release, "ICudaEngine"):
            object.__setattr__(engine, name, value)
    return engine


def _session_of(engine):
    """ONNX Runtime's session, node by node, made when it is first wanted."""
    if engine._played is None:
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        engine._played = onnxruntime.InferenceSession(engine._model, options, providers=["CPUExecutionProvider"])
    return engine._played


def _io(engine):
    """Inputs and outputs of the graph, and whether each is an input."""
    session = _session_of(engine)
    return [(each, True) for each in session.get_inputs()] + [(each, False) for each in session.get_outputs()]


def _of(engine, key):
    for index, (each, is_input) in enumerate(_io(engine)):
        if key in (index, each.name):
            return each, is_input
    raise IndexError(key)


def create_engine_inspector(self):
    inspector = self._trt.EngineInspector()
    inspector._engine = self
    return inspector


def get_engine_information(self, format):
    trt, told = self._trt, self._engine._told
    if format != trt.LayerInformationFormat.JSON:
        return "\n".join(layer["name"] for layer in told["layers"])
    metadata = RELEASES.index(trt.release) >= RELEASES.index("8.6")
    layers = []
    for layer in told["layers"]:
        name = layer["name"] or " + ".join(layer["nodes"])
        if not told["detailed"]:
            layers.append(name)
            continue
        if metadata and len(layer["nodes"]) > 1:
            name = "fused_" + re.sub(r"\W", "_", layer["nodes"][0])  # nodes are in the metadata only
        each = {
            "Name": name,
            "LayerType": layer["kind"],
            "Inputs": [_tensor(trt, "in", layer["input"])],
            "Outputs": [_tensor(trt, "out", layer["output"])],
            "TacticValue": "0x0000000000000000",
        }
        if metadata:
            each["Metadata"] = "\x1f".join("[ONNX Layer: {}]".format(node) for node in layer["nodes"])
        layers.append(each)
    names = ["image", "boxes", "scores"]
    if trt.release.startswith("11"):
        return json.dumps({"Layers": layers, "I/O Tensors": [{"Name": name} for name in names]})
    return json.dumps({"Layers": layers, "Bindings": names})


def _tensor(trt, name, precision):
    tensor = {"Name": name, "Dimensions": [1]}
    words = {"int8": "Int8", "fp16": "Half", "fp32": "Float", "int32": "Int32"}
    if trt.release.startswith("11"):
        tensor.update(Format="Row major linear format (kLINEAR)", DataType=words[precision])
    elif RELEASES.index(trt.release) >= RELEASES.index("10.13"):
        tensor["Format/Datatype"] = words[precision]
    else:
        tensor["Format/Datatype"] = {
            "int8": "Thirty-two wide channel vectorized row major Int8 format",
            "fp16": "Channel major FP16 format where channel % 8 == 0",
            "fp32": "Row major linear FP32",
            "int32": "Row major linear INT32 format",
        }[precision]
    return tensor


def create_execution_context(self):
    self._contexts += 1
    if self._contexts in self._trt.world.no_contexts:  # NVIDIA/TensorRT issue 2643
        _error(self._log, self._trt, "2: Error Code 2: OutOfMemory (no further information)")
        return None
    context = self._trt.IExecutionContext()
    context._engine, context._addresses = self, {}
    return context


def set_tensor_address(self, name, memory):
    if not isinstance(memory, int):
        raise TypeError("set_tensor_address(): incompatible function arguments")
    self._addresses[name] = memory
    return True


def execute_async_v2(self, bindings, stream_handle, input_consumed):
    if not isinstance(stream_handle, int):
        raise TypeError("execute_async_v2(): incompatible function arguments")
    names = [each.name for each, _ in _io(self._engine)]
    return _execute(self._engine, dict(zip(names, bindings)))


def execute_async_v3(self, stream_handle):
    if not isinstance(stream_handle, int):
        raise TypeError("execute_async_v3(): incompatible function arguments")
    return _execute(self._engine, self._addresses)


def _execute(engine, addresses):
    """Run on host memory at the addresses given; nothing is copied but what the graph computes."""
    arrays, tensors = {}, _io(engine)
    for each, _ in tensors:
        if not addresses.get(each.name):
            return False
        size = int(np.prod(each.shape))
        memory = (ctypes.c_float * size).from_address(addresses[each.name])
        arrays[each.name] = np.frombuffer(memory, dtype=np.float32).reshape(each.shape)
    inputs = {each.name: arrays[each.name] for each, is_input in tensors if is_input}
    outputs = [each.name for each, is_input in tensors if not is_input]
    for name, value in zip(outputs, _session_of(engine).run(outputs, inputs)):
        np.copyto(arrays[name], value)
    return True


PLAYS = {
    "Builder": {
        "__init__": builder_init,
        "create_network": create_network,
        "create_builder_config": lambda self: self._trt.IBuilderConfig(),
        "build_serialized_network": build_serialized_network,
    },
    "INetworkDefinition": {"get_layer": get_layer},
    "ILayer": {"get_output": lambda self, index: self._outputs[index], "set_output_type": set_output_type},
    "OnnxParser": {
        "__init__": parser_init,
        "parse": parse,
        "get_error": lambda self, index: self._errors[index],
    },
    "ParserError": {
        "code": lambda self: self._told[0],
        "node": lambda self: 0,
        "desc": lambda self: self._told[2],
    },
    "IBuilderConfig": {
        "__init__": config_init,
        "set_flag": lambda self, flag: self._flags.add(flag.name),
        "clear_flag": lambda self, flag: self._flags.discard(flag.name),
        "set_memory_pool_limit": set_memory_pool_limit,
        "create_timing_cache": create_timing_cache,
        "set_timing_cache": set_timing_cache,
        "get_timing_cache": lambda self: self._cache,
    },
    "ITimingCache": {"serialize": serialize_cache},
    "Runtime": {"__init__": runtime_init, "deserialize_cuda_engine": deserialize_cuda_engine},
    "ICudaEngine": {
        "create_engine_inspector": create_engine_inspector,
        "create_execution_context": create_execution_context,
        "get_binding_name": lambda self, index: _of(self, index)[0].name,
        "binding_is_input": lambda self, index: _of(self, index)[1],
        "get_binding_dtype": lambda self, index: self._trt.DataType.FLOAT,
        "get_binding_shape": lambda self, index: tuple(_of(self, index)[0].shape),
        "get_tensor_name": lambda self, index: _of(self, index)[0].name,
        "get_tensor_mode": lambda self, name: (
            self._trt.TensorIOMode.INPUT if _of(self, name)[1] else self._trt.TensorIOMode.OUTPUT
        ),
        "get_tensor_dtype": lambda self, name: self._trt.DataType.FLOAT,
        "get_tensor_shape": lambda self, name: tuple(_of(self, name)[0].shape),
    },
    "EngineInspector": {"get_engine_information": get_engine_information},
    "IExecutionContext": {
        "set_tensor_address": set_tensor_address,
        "execute_async_v2": execute_async_v2,
        "execute_async_v3": execute_async_v3,
    },
}
