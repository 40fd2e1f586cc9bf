"""The command line: parse, build, run. Whatever a user can get wrong ends in one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads must not spin
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its own threads fight with those of workers

import typer
import yaml
from rich.console import Console

from . import __version__
from .commands.init_peers import init_peers
from .commands.keys import keys
from .commands.peer import peer
from .commands.plan import plan
from .commands.reproduce import reproduce
from .commands.speech import sentences
from .commands.status import status

if TYPE_CHECKING:
    from .experiment import Experiment

app = typer.Typer(
    help="Fine-tune one language model for many tasks on many devices without a server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting, e.g. -s train.steps=10; repeat for more."),
]


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
@app.command()
def run(
    preset: Annotated[
        str, typer.Argument(help="default, smoke (under 40 s) or paper (the paper's readings throughout).")
    ] = "default",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file laid over the preset.")] = None,
    set_: Set = None,
    model: Annotated[str | None, typer.Option(help="Directory or hub name of a causal language model.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks by name, separated by commas.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Directory of NAME/train.jsonl and NAME/test.jsonl, or `hub`.")
    ] = None,
    devices: Annotated[int | None, typer.Option(help="Number of devices; default: one per task.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Communication rounds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Every random draw is keyed by it.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; does not change the result.")] = None,
    engine: Annotated[str | None, typer.Option(help="inprocess, or ray: workers on a Ray cluster.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Running Ray cluster, HOST:PORT or auto.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/PRESET-DATE.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Run an experiment: a preset, then a file, then what is given here, in that order.

    Ends with a table and writes a run directory: config.yaml, checkpoints, records in Parquet, summary.json and
    report.html. All settings, their defaults and units: orthomesh settings.
    """
    from .presets import build, plain

    named = {
        "model.source": model, "tasks.names": f"[{tasks}]" if tasks is not None else None, "tasks.data": data,
        "devices": devices, "rounds": rounds, "seed": seed, "workers": workers,
        "engine": engine, "ray_address": ray_address,
    }  # fmt: skip
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    with sentences():
        x = build(preset, config, [*given, *(set_ or [])])
        directory = out or Path("runs") / f"{x.name}-{datetime.now():%Y%m%d-%H%M%S}"
        if directory.exists() and any(directory.iterdir()):
            raise ValueError(f"{directory} is not empty; choose another --out, or: orthomesh resume {directory}")
        notes = _check(x)  # before anything is written
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(plain(x), sort_keys=False), encoding="utf-8")
        (directory / "versions.json").write_text(json.dumps(_versions(), indent=1), encoding="utf-8")
    _carry_out(x, notes, directory, quiet)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="Run directory of an interrupted run.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Go on with an interrupted run; it ends with the same hash as one that was never interrupted."""
    from .presets import of_run

    with sentences():
        x = of_run(directory)
        notes = _check(x) + _changed_versions(directory)
    _carry_out(x, notes, directory, quiet)


def _check(x: Experiment) -> list[str]:
    """See that all fits into memory, load the model and read the data once; what is wrong with them is said here."""
    from .experiment import check  # late: help and settings must not wait for torch
    from .reproduction.costs import check_memory

    check_memory(x)
    return check(x)


def _versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from .experiment import versions

    return versions()


def _changed_versions(directory: Path) -> list[str]:
    """A sentence for every package that is not what the run began with; its last bits may then differ."""
    path = directory / "versions.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = _versions()
    return [f"begun with {k} {v}, resumed with {now.get(k)}" for k, v in begun.items() if now.get(k) != v]


def _carry_out(x: Experiment, notes: list[str], directory: Path, quiet: bool) -> None:
    """Run from wherever the directory stands, show it, and end with the table."""
    from . import experiment
    from .evaluation.table import result_table
    from .evaluation.wording import headline
    from .show import follow, words

    console, started = Console(highlight=False), time.monotonic()
    with sentences(directory):
        for note in notes if not quiet else ():
            console.print(f"note: {note}", markup=False, soft_wrap=True)
        follow(experiment.run(x, directory), x, console, quiet)
        summary = experiment.finish(x, directory, notes, time.monotonic() - started)
        for note in summary["notes"][len(notes) :]:
            console.print(f"note: {note}", markup=False, soft_wrap=True)
        console.print(result_table(summary, console.width))
        console.print(headline(summary), markup=False)
        console.print(f"final state: sha256 {summary['final_sha256']}", soft_wrap=True)
        console.print(f"took {words(summary['wall_s'])}, report: {directory / 'report.html'}", soft_wrap=True)


@app.command()
def settings(preset: Annotated[str, typer.Argument(help="Whose values to show.")] = "default") -> None:
    """Print all settings of a preset as YAML, each with what it means; a file to start from."""
    from .config import near
    from .presets import PRESETS, explain

    with sentences():
        if preset not in PRESETS:
            raise ValueError(f"there is no preset {preset!r}.{near(preset, PRESETS)}")
        print(explain(PRESETS[preset]()))


@app.command()
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Of a finished run, or of its peers.")],
    out: Annotated[Path, typer.Option(help="Where the directories of several peers are joined.")] = Path("joined"),
) -> None:
    """Write report.html of a finished run again; of several peers' directories, join them and write one of all."""
    from .evaluation.report import write_report

    with sentences():
        if len(directories) > 1:
            from .joining import join

            print(f"final state: sha256 {join(directories, out)['final_sha256']}")
        print(write_report(out if len(directories) > 1 else directories[0]))


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
@app.command()
def densities(
    tasks: Annotated[str, typer.Option(help="Tasks by name, separated by commas.")],
    model: Annotated[str | None, typer.Option(help="Directory or hub name of a causal language model.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Directory of NAME/train.jsonl and NAME/test.jsonl, or `hub`.")
    ] = None,
    density: Annotated[float, typer.Option(help="Share of all entries of B that is active.")] = 0.125,
    temperature: Annotated[
        float | None, typer.Option(help="In nats; lower spreads densities further. Default: the rule's own.")
    ] = None,
    rule: Annotated[str, typer.Option(help="entropy (ours) or softmax (the paper's).")] = "entropy",
    rank: Annotated[int, typer.Option(help="Rank of the adapters.")] = 16,
    prompts: Annotated[int, typer.Option(help="Training prompts of each task to look at.")] = 32,
    seed: Annotated[int, typer.Option(help="Draws the prompts.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Directory for densities.csv, .svg and .html.")] = None,
) -> None:
    """Print spectral entropy and density of every layer for some tasks, eqs. (20)-(22), as in the paper's Figure 5."""
    from .config import parse
    from .evaluation import densities as figure
    from .models.settings import ModelSettings
    from .tasks.settings import TaskSettings

    console, names = Console(highlight=False), tuple(name.strip() for name in tasks.split(","))
    named = {"source": model, "rank": rank}
    with sentences():
        sharing = parse(figure.Sharing, {"density": density, "rule": rule, "temperature": temperature}, "densities")
        settings = parse(ModelSettings, {k: v for k, v in named.items() if v is not None}, "model")
        source = parse(TaskSettings, {"names": names, "data": data or "", "train_examples": prompts}, "tasks")
        layout, measured = figure.measure(settings, source, seed)
        for one in measured:
            if one.cut:
                console.print(f"note: {one.cut} of {one.prompts} prompts of {one.task} were cut", markup=False)
        by_task = figure.layer_densities(layout, measured, sharing)
        console.print(figure.density_table(by_task))
        for sentence in figure.sentences(by_task):
            console.print(sentence, markup=False, soft_wrap=True)
        for path in figure.write_densities(by_task, figure.title(settings, sharing), out) if out else ():
            console.print(path, markup=False, soft_wrap=True)


Run = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run, or of `orthomesh export`.")]
Of = Annotated[str | None, typer.Option("--method", help="Label of the run's method; default: the first with experts.")]
Whose = Annotated[int | None, typer.Option("--device", help="Whose bank of experts; default: the first device's.")]


@app.command()
def ask(
    directory: Run,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="As the tasks' examples have them.")],
    method: Of = None,
    device: Whose = None,
    model: Annotated[str | None, typer.Option(help="The base model, where it has moved.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; default: 64, or half the context.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the answers.")] = False,
) -> None:
    """Ask what a device has learnt; says which expert answered and why."""
    from .ask import ask as answers
    from .ask import open_bank

    with sentences():
        for reply in answers(open_bank(directory, method, device), prompts, max_tokens, model):
            print(reply.text)
            if not quiet:
                lost = f"; the prompt was too long and lost its first {reply.cut} tokens" if reply.cut else ""
                Console(stderr=True, soft_wrap=True, highlight=False).print(f"  {reply.why}{lost}", markup=False)


@app.command()
def export(
    directory: Run,
    out: Annotated[Path, typer.Argument(help="Where to write.")],
    method: Of = None,
    device: Whose = None,
    peft: Annotated[bool, typer.Option("--peft", help="As a LoRA checkpoint that peft loads by itself.")] = False,
    expert: Annotated[str | None, typer.Option(help="Only the expert of this task (with --peft).")] = None,
) -> None:
    """Write a device's experts as a bank for orthomesh.load, or as a checkpoint for peft."""
    from .ask import export as write
    from .ask import open_bank

    with sentences():
        print(write(open_bank(directory, method, device), out, peft, expert))


app.command()(plan)
app.command()(reproduce)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


app.command()(keys)
app.command("init-peers")(init_peers)
app.command()(peer)
app.command()(status)


def main() -> None:
    """Entry point."""
    app()
