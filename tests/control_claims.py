"""A paper that agrees with itself and with what can be, its arithmetic done by hand: what no audit may object to."""

from __future__ import annotations

import copy
from typing import Any

from edgejoule_analyst.claims import Claims, Known

ROWS = {  # model, variant: ap50, ms, W, MB, to fp32, to ptq, FPS, P_dynamic, mJ, mAP/J; the idle board takes 5.0 W
    ("A", "fp32"): ("40.0", "10.0", "8.0", "16.4", None, None, "100.0", "3.0", "80.0", "500"),
    ("A", "fp16"): ("39.9", "7.0", "7.5", "8.3", "-0.1", None, "142.9", "2.5", "52.5", "760"),
    ("A", "int8-ptq"): ("38.0", "5.0", "7.0", "4.3", "-2.0", None, "200.0", "2.0", "35.0", "1086"),
    ("A", "int8-qat"): ("39.5", "5.1", "7.1", "4.3", "-0.5", "1.5", "196.1", "2.1", "36.2", "1091"),
    ("B", "fp32"): ("50.0", "20.0", "10.0", "32.5", None, None, "50.0", "5.0", "200.0", "250"),
    ("B", "fp16"): ("49.9", "12.0", "9.5", "16.3", "-0.1", None, "83.3", "4.5", "114.0", "438"),
    ("B", "int8-ptq"): ("47.0", "8.0", "9.0", "8.4", "-3.0", None, "125.0", "4.0", "72.0", "653"),
    ("B", "int8-qat"): ("49.2", "8.2", "9.1", "8.4", "-0.8", "2.2", "122.0", "4.1", "74.6", "660"),
}
SPREAD = {"latency_std_ms": "0.2", "power_std_w": "0.1"}


def _measured(variant: str) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "variant": variant,
            "ap50": v[0],
            "ap50_std": "0.0",
            **SPREAD,
            "latency_ms": v[1],
            "power_w": v[2],
            "size_mb": v[3],
            "to_fp32_pp": v[4],
            "to_ptq_pp": v[5],
        }
        for (model, of), v in ROWS.items()
        if of == variant
    ]


def _efficiency() -> list[dict[str, Any]]:
    names = ("fps", "dynamic_w", "energy_mj", "map_per_joule")
    return [
        {
            "model": m,
            "variant": variant,
            "latency_ms": v[1],
            "power_w": v[2],
            **SPREAD,
            **dict(zip(names, v[6:], strict=True)),
        }
        for (m, variant), v in ROWS.items()
    ]


CLAIMS: dict[str, Any] = {
    "label": "claimed",
    "source": {"title": "A control", "journal": "none", "doi": "none"},
    "board": {
        "name": "Board",
        "where": "Table 0",
        "idle_power_w": "5.0",
        "idle_where": "section 0",
        "tensorrt": "10.3",
        "python": "3.10",
        "software_where": "Table 0",
        "throttles_at_c": "99.0",
        "throttles_where": "section 0",
    },
    "accuracy": {
        "confidence": "0.001",
        "where": "Table 0",
        "trials": 5,
        "same_checkpoint": True,
        "seeded": True,
        "trials_where": "section 0",
        "split": "val",
        "split_images": 5000,
        "evaluated_images": 5000,
        "calibrated_on": "train",
        "calibration_images": 1024,
        "said_disjoint": True,
        "data_where": "Table 0",
    },
    "surveyed": {
        "where": "Table 1",
        "rows": [
            {
                "model": "A",
                "platform": "Board",
                "source": "this work",
                "fp32": "40.0",
                "int8": "38.0",
                "change_pp": "-2.0",
            }
        ],
    },
    "models": {
        "where": "Table 4",
        "rows": [
            {
                "model": "A",
                "params_m": "4.0",
                "gflops": "2.0",
                "input_px": 320,
                "ptq_sensitivity": "Medium",
                "release": "1.0",
            },
            {
                "model": "B",
                "params_m": "8.0",
                "gflops": "16.0",
                "input_px": 640,
                "ptq_sensitivity": "High",
                "release": "7.0",
            },
        ],
    },
    "measured": [{"where": f"Table of {v}", "rows": _measured(v)} for v in ("fp32", "fp16", "int8-ptq", "int8-qat")],
    "efficiency": {"where": "Table 8", "rows": _efficiency()},
    "guidelines": {
        "where": "Table 11",
        "rows": [
            {
                "priority": "Speed",
                "model": "A",
                "variant": "int8-qat",
                "max_loss_pp": "1",
                "min_ms": "0",
                "max_ms": "6",
            },
            {"priority": "AP", "model": "B", "variant": "int8-qat", "max_loss_pp": "1", "min_ms": "6", "max_ms": "10"},
        ],
    },
    "flops_per_mac": 2,
    "flops_where": "Eq. 1",
    "figures": [
        {"where": "text", "quantity": "ap50", "model": "B", "variant": "int8-qat", "value": "49.2"},
        {"where": "text", "quantity": "fps", "model": "B", "variant": "int8-qat", "value": "122.0"},
        {"where": "text", "quantity": "loss_pp", "model": "A", "variant": "int8-ptq", "value": "2.0"},
        {"where": "text", "quantity": "inferences_per_joule", "model": "A", "variant": "int8-ptq", "value": "28.6"},
        {"where": "text", "quantity": "energy_j", "model": "B", "variant": "fp32", "value": "0.200"},
    ],
    "ranges": [
        {"where": "text", "quantity": "size_ratio", "statistic": "mean", "variant": "int8-ptq", "values": ["3.84"]},
        {"where": "text", "quantity": "speedup", "statistic": "range", "variant": "int8-ptq", "values": ["2.0", "2.5"]},
        {"where": "text", "quantity": "gain_pp", "statistic": "max", "variant": "int8-qat", "values": ["2.2"]},
    ],
    "settings": [{"name": "seed", "said": [{"value": "42", "where": "Table 0"}, {"value": "42", "where": "text"}]}],
    "formulas": {
        "mean_ap_where": "text",
        "mean_ap_is": "mean",
        "classes": 80,
        "optimal_where": "text",
        "optimal_is": "not beaten",
    },
    "fronts": [{"where": "text", "variant": "int8-qat", "models": ["B", "A"]}],
    "real_time": [{"where": "text", "subject": "A", "fps": "196.1", "least_fps": "30", "said": True}],
    "practical": [{"where": "text", "model": "A", "variant": "int8-qat", "fps": "60", "stream_fps": "30"}],
    "prevalence": {"where": "text", "percent": {"A": "60", "B": "40"}},
}

KNOWN: dict[str, Any] = {
    "boards": {
        "Board": {
            "sm": "8.7",
            "gpu_cores": 1024,
            "gpu_max_hz": 1020000000,
            "gpu_source": "made up",
            "tensorrt": "10.3",
            "python": "3.10",
            "software_source": "made up",
            "throttle_trip_c": "99.0",
            "throttle_source": "made up",
            "idle_w": ["4.9", "5.5"],
            "idle_source": "made up",
            "gpu_busy_w": "3.0",
            "gpu_busy_source": "made up",
        }
    },
    "detectors": {
        "A": {"params_m": "4.0", "gmacs": "1.0", "ap50": "41.0", "newest_release": "1.0.0", "source": "made up"},
        "B": {"params_m": "8.1", "gmacs": "8.1", "ap50": "50.5", "newest_release": "7.0", "source": "made up"},
    },
}


def control(*changes: tuple[str, Any]) -> tuple[Claims, Known]:
    """The control, with changes by path: ``("measured.0.rows.1.ap50", "45.0")``, ``("known.boards...", ...)``."""
    whole = copy.deepcopy({**CLAIMS, "known": KNOWN})
    for path, value in changes:
        *way, last = path.split(".")
        place: Any = whole
        for name in way:
            place = place[int(name)] if isinstance(place, list) else place[name]
        place[int(last) if isinstance(place, list) else last] = value
    return Claims.model_validate({k: v for k, v in whole.items() if k != "known"}), Known.model_validate(whole["known"])
