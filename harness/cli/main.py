"""The command group and how errors end. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from functools import partial

import rich_click as click

from harness.cli.chat import chat_command
from harness.cli.dissociate import dissociate_command
from harness.cli.export import elastic_command, export_command, slice_command
from harness.cli.options import typed_command
from harness.cli.results import (
    compare_command,
    inspect_command,
    push_command,
    report_command,
    runs_command,
    track_command,
)
from harness.cli.run import recover_command, run_command
from harness.cli.serve import bench_command, serve_command
from harness.cli.setup import (
    completion_command,
    config_group,
    doctor_command,
    metrics_command,
    models_command,
    presets_command,
    tasks_command,
)
from harness.cli.stages import eval_command, grade_command, plan_command, prune_command, score_command
from harness.cli.sweep import sweep_command
from harness.cli.vocabulary import vocabulary_command
from harness.core.errors import HarnessError
from harness.core.secrets import redacted, redacted_words
from harness.core.text import one_line

_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    # one column of names, without the --no- forms; the help text says what the choices are
    "rich_help_config": {
        "options_table_column_types": ["required", "opt_primary", "metavar", "help"],
        "delimiter_comma": ", ",
    },
}
_CLOSED_PIPE = 141  # as the shell reports a program that SIGPIPE ended
_PANELS = {
    "Prune and prove": (run_command, sweep_command, recover_command, dissociate_command),
    "One stage at a time": (
        score_command,
        plan_command,
        prune_command,
        vocabulary_command,
        eval_command,
        grade_command,
    ),
    "Where it is served": (export_command, elastic_command, slice_command),
    "Serve and measure": (bench_command, serve_command, chat_command),
    "Look at results": (runs_command, report_command, compare_command, inspect_command, push_command, track_command),
    "What is available": (
        doctor_command,
        models_command,
        tasks_command,
        metrics_command,
        presets_command,
        config_group,
        completion_command,
    ),
}


def main() -> None:
    """The console script: every error is one line, exit 1 or 2; the traceback only with --debug."""
    debug = "--debug" in sys.argv
    _end_by_sigterm()
    _hide_key()
    if not debug:  # one line says that a download failed; not one for every retry
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        cli(prog_name="harness", standalone_mode=False)
    except SystemExit as ended:  # click ends so where what reads standard output has closed it, as `| head -1` does
        sys.exit(_CLOSED_PIPE if isinstance(ended.__context__, BrokenPipeError) else ended.code)
    except click.ClickException as error:
        vars(error)["message"] = redacted(error.message)  # declared final, and a click exception shows only itself
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to resume", err=True)
        sys.exit(1)
    except HarnessError as error:
        click.echo(redacted(traceback.format_exc()) if debug else f"error: {one_line(redacted(str(error)))}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort for the user's sake: one line instead of a page
        line = one_line(redacted(next(iter(str(error).splitlines()), "")))
        short = f"error: unexpected {type(error).__name__}: {line} (run again with --debug for the traceback)"
        click.echo(redacted(traceback.format_exc()) if debug else short, err=True)
        sys.exit(1)


def _end_by_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does: what is half-written is removed. A forked child ends at once."""
    ends = {signal.SIGTERM}
    allow = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, ends)

    def in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        allow()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, ends)  # one that reaches the child first would be lost
    os.register_at_fork(before=block, after_in_parent=allow, after_in_child=in_child)


def _hide_key() -> None:
    """A key on the command line is in the process list until here; what stands there from now on is the same line with
    "..." for it.
    """
    if redacted_words(sys.argv[1:]) != sys.argv[1:]:
        from setproctitle import setproctitle

        setproctitle(typed_command())


@click.group(context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(package_name="harness-prune")
@click.pass_context
def cli(context: click.Context) -> None:
    """Prunes FFN neurons of a task-specific language model and measures, with intervals, what that changes.

    \b
    harness run                                  the embedded model, 20 % removed
    harness run --model qwen-7b --dry-run        what it would do, without weights
    harness run --model ./my-model --task gsm8k  your own model
    harness runs                                 what has run, and how to resume
    harness doctor                               what is installed, what is missing
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _panel, _commands in _PANELS.items():
    for _command in _commands:
        cli.add_command(_command)
    click.command_panel(_panel, commands=[str(_command.name) for _command in _commands])(cli)


if __name__ == "__main__":
    main()
