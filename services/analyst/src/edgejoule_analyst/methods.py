"""What a paper that quotes a run should say of how it was measured, and how it cites it: written from the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgejoule.records import Evidence, Results
from edgejoule_analyst.words import facts, level, row_name, variant_name

AUTHORS = "{The Edgejoule developers}"


def methods(results: Results) -> str:
    """A paragraph of methods; what the record does not hold is not said."""
    return " ".join(sentence for sentence in _sentences(results) if sentence)


def bibtex(results: Results, sha256: str) -> str:
    """Entries for the run, by the hash of its results.json, and for the program.

    Args:
        sha256: of the bytes of that file, so that whoever has it can tell; read and written again they may be others.
    """
    year = min(started[:4] for started in _starts(results)) if _starts(results) else None
    dated = [f"  year         = {{{year}}},"] if year else []
    run = results.run.replace("_", r"\_")  # of what its name may hold, the one character that LaTeX reads as its own
    simulated = " Some figures are simulated." if any(row.simulated for row in results.rows) else ""
    return "\n".join(
        [
            f"@misc{{edgejoule-{results.run},",
            f"  title        = {{{{Object detectors on edge devices: the run {run}}}}},",
            f"  author       = {{{AUTHORS}}},",
            *dated,
            f"  howpublished = {{Measured with Edgejoule {results.edgejoule_version}}},",
            f"  note         = {{SHA-256 of its results.json: {sha256}.{simulated}}}",
            "}",
            "",
            "@misc{edgejoule,",
            "  title        = {{Edgejoule}: which detector, at which precision, on which board},",
            f"  author       = {{{AUTHORS}}},",
            *dated,
            f"  note         = {{Version {results.edgejoule_version}}}",
            "}",
            "",
        ]
    )


def _sentences(results: Results) -> Iterator[str]:
    rows = results.rows
    if not rows:
        yield f"The run has no rows; Edgejoule {results.edgejoule_version} had nothing to compare."
        return
    models = list(dict.fromkeys(row.model for row in rows))
    variants = list(dict.fromkeys(row.variant for row in rows))
    devices = list(dict.fromkeys(row.device for row in rows))
    yield (
        f"We compared {_listed(models)} as {_listed([variant_name(variant) for variant in variants])} on"
        f" {_listed(devices)} with Edgejoule {results.edgejoule_version}."
    )
    if simulated := [device for device in devices if any(row.simulated for row in rows if row.device == device)]:
        yield f"Figures of {_listed(simulated)} are simulated: they come from no real device."
    for device in devices:
        of_device = [results.evidence[name] for name in results.evidence if name.endswith(f"/{device}")]
        timed = [evidence for evidence in of_device if evidence.trial_means_ms]
        yield _device(device, timed) if timed else ""
    yield _inputs(results)
    yield _calibration(results)
    yield _accuracy(results)
    yield _operating_points(results)
    yield _seeds(results)
    yield _timing(results)
    yield _energy(results)
    unmeasured = [row for row in rows if row.ap is None and row.latency_ms is None]
    if unmeasured:
        yield f"{len(unmeasured)} of {len(rows)} combinations have no result; each row says why."
    if any(not row.comparable for row in rows):
        yield "The protocol was one for looking, not for comparing: these figures should not be quoted."


def _device(device: str, timed: Sequence[Evidence]) -> str:
    """What the device is, by its first row, and the runtimes of all of them."""
    told, hardware = facts(timed[0].environment), timed[0].hardware
    said = [str(told["model"])] if isinstance(told.get("model"), str) else []
    if hardware:
        said.append(hardware.processor)
        said += [hardware.gpu] if hardware.gpu else []
    for name, title in (("l4t", "L4T"), ("jetpack", "JetPack")):
        said += [f"{title} {told[name]}"] if isinstance(told.get(name), str) else []
    modes = _unlike(f"power mode {mode}" for each in timed if (mode := facts(each.environment).get("power_mode")))
    said += [modes] if modes else []
    if isinstance(locked := told.get("clocks_locked"), bool):
        said.append("clocks locked" if locked else "clocks not locked")
    of_rows = [each.hardware for each in timed]
    runtimes = _unlike(f"{each.runtime} {each.runtime_version}" if each else "an unknown runtime" for each in of_rows)
    threads = _unlike(f"{each.threads} thread{'s' if each.threads != 1 else ''}" for each in timed if each.threads)
    by = ", ".join([runtimes, *([threads] if threads else [])])
    return f"{device} is {', '.join(said) or 'not described'}; inference by {by}."


def _inputs(results: Results) -> str:
    sizes: dict[str, dict[str, None]] = {}
    for row in results.rows:
        if size := results.evidence[row_name(row)].input:
            sizes.setdefault(f"{size.width} × {size.height}", {})[row.model] = None
    said = [f"{size} pixels ({_listed(list(models))})" for size, models in sizes.items()]
    return f"Inputs were {_listed(said)}." if said else ""


def _calibration(results: Results) -> str:
    """Of INT8, where a row has it: on how many images of which source, none of which it is scored on."""
    found = results.data.get("sets", {}).get("calibration", {})
    if not found or not any(row.hashes.calibration for row in results.rows):
        return ""
    return f"INT8 was calibrated on {found['images']} images of {found['source']}."


def _operating_points(results: Results) -> str:
    points = (row.operating_point for row in results.rows)
    told = _unlike(f"a confidence of {at.confidence:g} and an NMS IoU of {at.nms_iou:g}" for at in points if at)
    return f"Precision, recall and errors by size are at {told}." if told else ""


def _accuracy(results: Results) -> str:
    scored = next((e for e in results.evidence.values() if e.images is not None), None)
    if scored is None:
        return ""
    text = (
        f"Accuracy is COCO's AP over {scored.images} images, scored by {scored.scorer} from detections with a score of"
        f" {scored.score_floor:g} or more."
    )
    if scored.ap_interval is not None:
        text += (
            f" Each figure of accuracy has a {level(scored.ap_interval.level)} bootstrap interval over the images: a"
            " basic one for AP and AR, a percentile one at the operating point."
        )
    if results.differences:
        first = results.differences[0]
        text += (
            f" Differences in AP have {level(first.level)} percentile intervals of a paired bootstrap over the images"
            f" with {first.resamples} resamples, not corrected for the number of comparisons."
        )
        if first.p is not None:
            text += (
                " Whether a difference is more than chance was judged by a paired permutation test over the images,"
                f" with Holm's correction over all {len(results.differences)} tests of the run, AP and AP50, at"
                f" {1 - first.level:.2g}."
            )
    return text


def _seeds(results: Results) -> str:
    if not results.seed_tests:
        return ""
    counts = sorted({len(test.seeds) for test in results.seed_tests})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    tests = {
        "paired": "quantization-aware against post-training INT8 by a paired t-test, seed by seed",
        "one-sample": "INT8 against FP32 by a one-sample t-test",
    }
    made = [said for kind, said in tests.items() if any(test.test == kind for test in results.seed_tests)]
    return (
        f"INT8 was made anew by {seeds} seeds (calibration images, and the order of training) and scored on the same"
        f" images; held against each other over seeds: {' and '.join(made)}, with Holm's correction over all"
        f" {sum(test.p is not None for test in results.seed_tests)} tests."
    )


def _timing(results: Results) -> str:
    timed = [evidence for evidence in results.evidence.values() if evidence.trial_means_ms]
    if not timed:
        return ""
    counts = sorted({len(evidence.trial_means_ms) for evidence in timed})
    trials = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    iterations = _unlike(str(evidence.iterations) for evidence in timed)
    warmups = _unlike(str(evidence.warmup_iterations) for evidence in timed)
    return (
        f"Latency is the wall-clock time of single inferences {_batches(results)}, from image to boxes and scores,"
        f" before suppression: {trials} trial{'s' if counts[-1] > 1 else ''}, each a process of its own, of"
        f" {iterations} timed inferences after {warmups} for warm-up."
    )


def _batches(results: Results) -> str:
    batches = sorted({row.batch for row in results.rows if row.latency_ms is not None})
    named = " (rows -bN: of N images)" if batches[-1] > 1 else ""
    return f"at batch {_listed([str(batch) for batch in batches])}{named}"


def _energy(results: Results) -> str:
    with_energy = [row for row in results.rows if row.energy_mj is not None]
    if not with_energy:
        return "Energy was not measured."
    sources = {e.power_of for e in results.evidence.values() if e.power_of and e.trial_energies_mj}
    return (
        f"Energy per inference is the integral of power over the window divided by its inferences"
        f" ({'; '.join(sorted(sources))}), idling included unless said otherwise"
        f"{'; energy per image is a share of it by the batch' if any(row.batch > 1 for row in with_energy) else ''}."
    )


def _unlike(said: Iterable[str]) -> str:
    """Each of them once, in words."""
    found = list(dict.fromkeys(said))
    return _listed(found) if found else ""


def _starts(results: Results) -> list[str]:
    return [started for evidence in results.evidence.values() for started in evidence.started_at]


def _listed(names: list[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b"]), _listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
