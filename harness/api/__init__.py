"""The Python API: `import harness`, then `harness.run(...)` or one stage at a time; the command line calls the same.

Models are aliases (`harness models`), Hub ids, paths, or what `prune` returned; scores and plans are what the stage
before returned, or their files. Settings that are not named here are given as keywords too: they are the fields of
`harness.config.settings.RunConfig`, those of `recovery`, `sweep`, `goal` and `dissociate` by their bare names. One that
is not given comes from HARNESS_<FIELD> in the environment, then from the default, as on the command line. Keywords that
several share:

    out: the file or the run directory to write. None: in a temporary folder that is deleted when the process ends.
    fresh: start over, rather than resume what is in the run directory.
    config: settings as a RunConfig or a YAML file; keywords win.
    command: the command line, for run.json; None from Python.
    settings: any further field, as include_path="my_tasks", preset="paper", threads=4, steps=300 or workers=2.

Errors are HarnessErrors (`harness.core.errors`): UsageError for a wrong argument, before any work; MeasurementError and
StorageError for what failed later. After a call the process is as it was (`harness.engine.library_settings`).
"""

from __future__ import annotations

from harness.api.experiments import AUTO, dissociate, load_run, recover, run, sweep
from harness.api.forms import elastic, export, slice_width, vocabulary
from harness.api.stages import bench, evaluate, plan, prune, score

__all__ = [
    "AUTO",
    "bench",
    "dissociate",
    "elastic",
    "evaluate",
    "export",
    "load_run",
    "plan",
    "prune",
    "recover",
    "run",
    "score",
    "slice_width",
    "sweep",
    "vocabulary",
]
