"""Keys of the Go servers' files that Lipwire reads under another name, or does otherwise.

Files written for those servers load as they stand, and what such a key does not do here is said
when the server starts.
"""

from __future__ import annotations

from typing import Final

from lipwire.config.document import Mapping, Problem, Scalar

_OWN_THREADS: Final = (
    "each network runs with one thread, and as many side by side as there are cores"
)
_OWN_LOG: Final = "the log is written at once"
_NOT_USED: Final = {
    "gpus.allow_multi_gpu_models": "each avatar is on one GPU",
    "onnx.cuda_streams_per_worker": "each run has a stream of its own",
    "onnx.intra_op_threads": _OWN_THREADS,
    "onnx.inter_op_threads": _OWN_THREADS,
    "models.NAME.preferred_gpu": "gpus.assignment_strategy chooses the GPU",
    "logging.log_gpu_utilization": "Health tells how the GPUs do",
    "logging.buffered_logging": _OWN_LOG,
    "logging.sample_rate": "every batch is logged, or none",
    "logging.auto_flush": _OWN_LOG,
    "logging.flush_interval_ms": _OWN_LOG,
}
"""Why a key has no effect."""
_RENAMED: Final = {"logging.log_level": "level"}
"""What a key is called here."""


def translate(
    node: Mapping, problems: list[Problem], notes: dict[str, None], above: str = ""
) -> Mapping:
    """Return a copy of ``node``, a mapping of a configuration file, which may have been written for
    other servers, programs in Go whose files Lipwire accepts. Keys that only those have are
    replaced by Lipwire's keys of the same meaning, or left out where Lipwire has none. A model
    whose value is null gets an empty mapping. ``node`` is not changed.

    ``above`` is the name of the section in the file that ``node`` is, with a dot behind it
    ("logging."); empty for the whole file. For each key that is left out a line is added to
    ``notes``, a dict used as an ordered set, whose keys are the lines and whose values are None. A
    key that several models have gets a single line. A ``Problem`` is added to ``problems`` for each
    key that is given under both its names.
    """
    items, places = dict(node.items), dict(node.key_places)
    for key, value in node.items.items():
        name = above + ("NAME" if above == "models." else key)
        if name in _NOT_USED:
            notes[f"{name} has no effect: {_NOT_USED[name]}"] = None
            del items[key]
        elif name in _RENAMED:
            known = _RENAMED[name]
            if known in items:
                message = f"{name} and {known} are both given; leave one out"
                problems.append(Problem(places[key], message))
            else:
                items[known], places[known] = value, places[key]
            del items[key]
        elif above == "models." and isinstance(value, Scalar) and value.text is None:
            items[key] = Mapping({}, {})  # an avatar in models_root, with defaults
        elif isinstance(value, Mapping):
            items[key] = translate(value, problems, notes, f"{name}.")
    return Mapping(items, places)
