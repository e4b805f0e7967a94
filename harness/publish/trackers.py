"""Experiment trackers, opt-in: the figures of a run as a series over the share of neurons removed.

A tracker has three methods; a new one is a class here and a row in TRACKERS. Each is used as its own library finds it
set up: TRACKIO_DIR, WANDB_MODE=offline, MLFLOW_TRACKING_URI (without it, the folder mlruns here).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from harness.core.errors import MeasurementError, UsageError, first_line


class Tracker(Protocol):
    def start(self, project: str, name: str, settings: Mapping[str, str]) -> None: ...

    def log(self, figures: Mapping[str, float], step: int) -> None: ...

    def finish(self, failed: bool) -> None: ...


class _Trackio:
    def start(self, project: str, name: str, settings: Mapping[str, str]) -> None:
        import trackio

        trackio.init(
            project=project, name=name, config=dict(settings), auto_log_gpu=False, auto_log_cpu=False, embed=False
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        import trackio

        trackio.log(dict(figures), step=step)

    def finish(self, failed: bool) -> None:  # noqa: ARG002
        import trackio

        trackio.finish()  # type: ignore[no-untyped-call]


class _Wandb:
    def start(self, project: str, name: str, settings: Mapping[str, str]) -> None:
        import wandb

        self.run = wandb.init(project=project, name=name, config=dict(settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.run.log(dict(figures), step=step)

    def finish(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class _Mlflow:
    def start(self, project: str, name: str, settings: Mapping[str, str]) -> None:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(Path("mlruns").absolute().as_uri())
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it wants to be told that a folder is meant
        mlflow.set_experiment(project)
        mlflow.start_run(run_name=name)
        mlflow.log_params({key: value[:500] for key, value in settings.items()})  # its stores take no more

    def log(self, figures: Mapping[str, float], step: int) -> None:
        import mlflow

        mlflow.log_metrics(dict(figures), step=step)

    def finish(self, failed: bool) -> None:
        import mlflow

        mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: Mapping[str, Callable[[], Tracker]] = {"trackio": _Trackio, "wandb": _Wandb, "mlflow": _Mlflow}


# tracker -> the command that shows what was sent; an address in the environment may name another place
WHERE_TO_LOOK: Mapping[str, str] = {
    "trackio": "trackio show --project {project}",
    "wandb": "see the link above, or `wandb sync` for an offline run",
    "mlflow": "mlflow ui --backend-store-uri {store}",
}


def where_to_look(kind: str, project: str) -> str:
    """What to type, or where to click, to see what was sent."""
    store = os.environ.get("MLFLOW_TRACKING_URI", "./mlruns")
    return WHERE_TO_LOOK[kind].format(project=project, store=store)


def track(folder: Path, kind: str, project: str = "harness") -> int:
    """Sends a run's figures to a tracker and returns how many; raises UsageError where its package is not there or
    run.json is damaged, before anything is sent.
    """
    from harness.core.run_file import figures_of, read_run  # help pages name the trackers and need none of this

    run, tracker = read_run(folder), TRACKERS[kind]()
    with figures_of(folder):
        settings, points = settings_of(run), series(run)
    sent = 0
    try:
        tracker.start(project, folder.resolve().name, settings)
        for step, figures in points:
            tracker.log(figures, step)
            sent += len(figures)
        tracker.finish(failed=False)
    except ImportError as error:
        raise UsageError(f"{kind} is not installed ({error}); pip install {kind}") from error
    except Exception as error:  # every tracker has errors of its own
        with suppress(Exception):
            tracker.finish(failed=True)
        raise MeasurementError(f"{kind} did not take the run: {first_line(error)}") from error
    return sent


def settings_of(run: Mapping[str, Any]) -> dict[str, str]:
    from reports.figures import public_command, public_path

    versions = {f"version_{name}": version for name, version in run["versions"].items()}
    return {
        "model": public_path(str(run["model"])),
        "task": run["task"],
        "command": public_command(run["command"]),
        "created": run["created"],
        **versions,
    }


def series(run: Mapping[str, Any]) -> Sequence[tuple[int, dict[str, float]]]:
    """(per mille of neurons removed, figures), in rising order; names are task/quantity/way of pruning, of a sweep
    means over seeds.
    """
    found: dict[int, dict[str, float]] = {}
    for removed, name, value in _figures(run):
        if value is not None:
            found.setdefault(round(1000 * removed), {})[_plain(name)] = float(value)
    return sorted(found.items())


def _plain(name: str) -> str:
    """In the letters that every tracker takes."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def _figures(run: Mapping[str, Any]) -> Iterator[tuple[float, str, float | None]]:
    points = run["sweep"]["points"] if run.get("sweep") else ()
    for p in points:
        yield p["ratio_neurons"], f"{p['task']}/{p['metric']}/{p['arm']}", p["value"]
        yield p["ratio_neurons"], f"{p['task']}/failure_rate/{p['arm']}", p["failure_rate"]
    arm_of = {name: p["arm"] for p in points for name in p["variants"]}
    for v in run["variants"]:
        label = arm_of.get(v["name"], v["name"])
        yield v["ratio_neurons"], f"weight_bytes/{label}", v["weight_bytes"]
        for task, e in v["eval"].items() if v["name"] not in arm_of else ():
            yield v["ratio_neurons"], f"{task}/{e['metric']}/{label}", e["value"]
            yield v["ratio_neurons"], f"{task}/failure_rate/{label}", e["failure_rate"]
        for row in v["serving"]["concurrency"] if v["serving"] else ():
            yield v["ratio_neurons"], f"output_tok_s/{row['concurrency']}/{label}", row["output_tok_s"]
