"""`harness export`: the form that a way of serving needs; `elastic` and `slice`: one folder for every width, and one
width of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import DEBUG, DRY_RUN, JSON, METHOD, OUT, PATH, SettingsCommand
from harness.cli.output import answer, stdout_to_stderr


@click.command("export")
@click.argument("source", type=PATH)
@click.option(
    "--to", "home", type=click.Choice(["vllm", "decilm", "plugin", "gguf"]), help="Default: what needs least."
)
@click.option("--out", type=OUT, required=True, help="The folder to write; with --to gguf the file.")
@DRY_RUN
@JSON
@DEBUG
def export_command(source: Path, home: str | None, out: Path, dry_run: bool, as_json: bool) -> None:
    """Write SOURCE, a plan or a checkpoint folder, for a way of serving, and say what that needs.

    \b
    vllm    every layer alike: vLLM and transformers load it as they are
    decilm  a width or KV heads per layer, layers without a block: vLLM loads it with --trust-remote-code
    plugin  a width per layer, layers without attention: vLLM loads it where harness-prune is installed
    gguf    one file for llama.cpp, not quantised: Llama, Qwen2 and Qwen3
    """
    from harness.pipeline.export import export_to

    with stdout_to_stderr():
        made = export_to(source, home, out, dry_run)
    written = {} if dry_run else {"file" if made.path.is_file() else "folder": str(made.path)}
    size = {} if made.weight_bytes is None else {"weight_bytes": made.weight_bytes}
    answer({"home": made.home, **written, **size, "needs": made.needs, "serve": made.serve}, as_json)


@click.command("elastic", cls=SettingsCommand, settings=(*METHOD, "metric", "seed", "align"))
@click.argument("model", shell_complete=complete_models)
@click.argument("scores", type=PATH)
@click.option("--out", type=OUT, required=True, help="The folder to write.")
@JSON
@DEBUG
def elastic_command(model: str, scores: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write MODEL as one folder that stock vLLM serves at any FFN width.

    \b
    harness score ./my-model --task gsm8k --out scores.safetensors
    harness elastic ./my-model scores.safetensors --out elastic
    vllm serve elastic --hf-overrides '{"intermediate_size": 1024}'

    The neurons of every layer are put into the order in which SCORES keep them; the full width is the model as it was.
    Nothing is re-fitted, as a re-fit holds for one width only.
    """
    from harness.config.settings import load_config
    from harness.pipeline.elastic import elastic, serve_at
    from pruning import score_file

    config = load_config(None, options)
    with stdout_to_stderr():
        made, order = elastic(model, score_file.load(scores), config, out)
    widths = list(order.widths)
    told = {"method": order.method, "metric": order.metric, "intermediate_size": order.intermediate_size}
    serve = serve_at(made, widths[len(widths) // 2])
    answer({"folder": str(out), **told, "widths": widths, "serve": serve}, as_json)


@click.command("slice")
@click.argument("folder")
@click.argument("width", type=int)
@click.option("--out", type=OUT, required=True, help="The checkpoint folder to write.")
@JSON
@DEBUG
def slice_command(folder: str, width: int, out: Path, as_json: bool) -> None:
    """Write one WIDTH of an elastic FOLDER as a checkpoint of its own.

    It holds what `harness prune` writes at that width with the same scores and no re-fitting.
    """
    from harness.pipeline.elastic import slice_width

    with stdout_to_stderr():
        made = slice_width(folder, width, out)
    sizes = {"parameters": made.parameters, "weight_bytes": made.weight_bytes}
    answer({"checkpoint": str(out), "intermediate_size": width, **sizes}, as_json)
