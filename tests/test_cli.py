"""The command line: what a user types, reads, and gets wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from orthomesh import experiment
from orthomesh.cli import app
from orthomesh.presets import PRESETS, from_plain, plain

TINY = [
    *(
        "-s",
        "train.steps=2",
        "-s",
        "train.batch_size=4",
        "-s",
        "tasks.train_examples=20",
        "-s",
        "tasks.test_examples=5",
    ),
    *("--devices", "3", "--rounds", "2", "--workers", "1"),
]


def orthomesh(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    directory = tmp_path_factory.mktemp("run") / "one"
    return directory, orthomesh("run", "smoke", *TINY, "--out", str(directory))


def test_a_run_leaves_what_it_promises(finished: tuple[Path, Result]) -> None:
    directory, result = finished
    assert result.exit_code == 0
    made = {p.name for p in directory.iterdir()}
    assert made >= {"config.yaml", "summary.json", "report.html", "rounds.parquet", "accuracy.parquet", "state"}
    summary = json.loads((directory / "summary.json").read_text())
    assert list(summary["methods"]) == ["base", "local", "gossip", "orthomesh", "paper", "oracle"]
    assert summary["final_sha256"] in result.output
    for method in summary["methods"].values():
        assert method["accuracy"].keys() == {"zelk", "morv", "quib"}


def test_what_travels_is_what_is_summed(finished: tuple[Path, Result]) -> None:
    """Gossip sends 16 bits for each of its parameters to its two neighbours at once, in each of two rounds."""
    directory, _ = finished
    gossip = json.loads((directory / "summary.json").read_text())["methods"]["gossip"]
    floor = 2 * 2 * gossip["trained_parameters"]
    assert 0.8 * floor < gossip["bytes_per_device"]["values"] <= floor + 200  # zstd may shorten, heads add
    per_round = gossip["bytes_per_device_round"]["values"]
    assert per_round == pytest.approx(gossip["bytes_per_device"]["values"] / 2)


def test_resuming_a_finished_run_changes_nothing(finished: tuple[Path, Result]) -> None:
    directory, _ = finished
    before = json.loads((directory / "summary.json").read_text())
    assert orthomesh("resume", str(directory)).exit_code == 0
    after = json.loads((directory / "summary.json").read_text())
    assert after["final_sha256"] == before["final_sha256"]
    assert after["methods"] == before["methods"]


def test_a_run_resumed_with_other_versions_says_so(finished: tuple[Path, Result], tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(finished[0]), str(directory)], check=True)
    begun = json.loads((directory / "versions.json").read_text())
    (directory / "versions.json").write_text(json.dumps({**begun, "torch": "1.0"}))
    result = orthomesh("resume", str(directory))
    assert f"note: begun with torch 1.0, resumed with {begun['torch']}" in result.output


def test_the_written_config_reproduces_the_run(finished: tuple[Path, Result], tmp_path: Path) -> None:
    directory, _ = finished
    again = tmp_path / "again"
    result = orthomesh("run", "--config", str(directory / "config.yaml"), "--out", str(again), "-q")
    assert result.exit_code == 0
    first, second = (json.loads((d / "summary.json").read_text()) for d in (directory, again))
    assert first["final_sha256"] == second["final_sha256"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "rounds"),
        (["--devices", "0"], "devices"),
        (["-s", "methods.orthomesh.density=0"], "methods.orthomesh.density"),
        (["-s", "methods.orthomesh.density=1.5"], "methods.orthomesh.density"),
        (["-s", "methods.orthomesh.densty=0.5"], "Did you mean 'density'"),
        (["-s", "trian.steps=3"], "Did you mean 'train'"),
        (["-s", "train.steps=many"], "train.steps"),
        (["-s", "train.steps"], "key=value"),
        (["-s", "methods.x={kind: gossip}"], "there is no method 'gossip'"),
        (["-s", "methods={local: null, gossip: null, orthomesh: null, paper: null}"], "nothing to run"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--model", "/nowhere/model"], "no directory /nowhere/model"),
        (["--tasks", "zelk,morf"], "morv"),
        (["--tasks", "snips", "--data", "/nowhere"], "no directory /nowhere"),
        (["-s", "model.layers=[w9]"], "no linear layer w9"),
        (["-s", "model.rank=97"], "rank 97 exceeds"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    directory = tmp_path / "never"
    result = orthomesh("run", "smoke", *words, "--out", str(directory))
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert not directory.exists()


def test_a_run_too_large_for_memory_is_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthomesh.reproduction.costs.memory_b", lambda: 2**24)
    monkeypatch.setattr("orthomesh.models.base.load_base", lambda *_: pytest.fail("a model was loaded"))
    result = orthomesh("run", "smoke", "--out", str(tmp_path / "never"))
    assert result.exit_code == 2
    assert "this run would hold about" in result.output
    assert "this machine has 0.0 GiB of memory" in result.output


def test_an_unknown_preset_is_named() -> None:
    result = orthomesh("run", "smok")
    assert (result.exit_code, "Did you mean 'smoke'" in result.output) == (2, True)


def test_a_directory_in_use_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    result = orthomesh("run", "smoke", *TINY, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "not empty" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(x: experiment.Experiment, directory: Path) -> Iterator[experiment.Progress]:
        yield experiment.Progress(label="local", round=0, share=0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupted)
    result = orthomesh("run", "smoke", *TINY, "--out", str(tmp_path / "run"))
    assert result.exit_code == 130
    assert f"orthomesh resume {tmp_path / 'run'}" in result.output


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, real, calls = tmp_path / "run", os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    others = ("-s", "methods={local: null, orthomesh: null, paper: null}")
    result = orthomesh("run", "smoke", *TINY, *others, "--out", str(directory))
    assert result.exit_code == 2
    assert "No space left" in result.output
    assert not list(directory.rglob("*.new"))
    monkeypatch.setattr(os, "fsync", real)
    assert orthomesh("resume", str(directory), "-q").exit_code == 0


def test_a_truncated_checkpoint_is_named(tmp_path: Path, finished: tuple[Path, Result]) -> None:
    source, directory = finished[0], tmp_path / "copy"
    subprocess.run(["cp", "-r", str(source), str(directory)], check=True)
    state = directory / "state" / "gossip.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    result = orthomesh("resume", str(directory))
    assert result.exit_code == 2
    assert "gossip.safetensors" in result.output
    assert "truncated" in result.output


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_printed_settings_read_back_as_the_preset(preset: str) -> None:
    text = orthomesh("settings", preset).output
    assert plain(from_plain(yaml.safe_load(text), "settings")) == plain(PRESETS[preset]())
    assert "# Rank r of every adapter." in text


def test_help_and_settings_do_not_wait_for_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from orthomesh.cli import app\n"
        "for words in (['run', '--help'], ['settings']): assert CliRunner().invoke(app, words).exit_code == 0\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_report_is_written_again(finished: tuple[Path, Result]) -> None:
    page = finished[0] / "report.html"
    page.unlink()
    assert orthomesh("report", str(finished[0])).exit_code == 0
    assert page.is_file()
    assert orthomesh("report", str(finished[0] / "state")).exit_code == 2


def test_densities_are_printed_and_written(tmp_path: Path) -> None:
    words = ("--tasks", "zelk, morv", "--prompts", "4", "--density", "0.25", "--rank", "4")
    result = orthomesh("densities", *words, "--out", str(tmp_path / "new"))
    assert result.exit_code == 0
    assert result.output.count("2,688 of 10,752 entries active") == 2  # a quarter, to the entry
    lines = (tmp_path / "new" / "densities.csv").read_text().splitlines()
    assert lines[0] == "task,layer,block,kind,entropy,density,active,size"
    assert len(lines) == 1 + 2 * 21
    assert sum(int(line.split(",")[-2]) for line in lines[1:]) == 2 * 2688
    assert {p.suffix for p in (tmp_path / "new").iterdir()} == {".csv", ".svg", ".html"}
    paper = orthomesh("densities", *words, "--rule", "softmax")
    hot = orthomesh("densities", *words, "--temperature", "1e6")
    assert paper.exit_code == hot.exit_code == 0
    assert "a factor of 1.0; 2,688 of" in hot.output
    assert len({result.output.split("zelk: ")[1].split(";")[1], paper.output.split("zelk: ")[1].split(";")[1]}) == 2


def test_densities_say_which_prompts_were_cut(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    rows = [{"instruction": "word " * n, "output": "yes"} for n in (1, 100)]
    (tmp_path / "long" / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    result = orthomesh("densities", "--tasks", "long", "--data", str(tmp_path))
    assert "note: 1 of 2 prompts of long" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "zelk,morf"], "morv"),
        (["--tasks", "zelk,zelk"], "named twice"),
        (["--tasks", "zelk", "--density", "0"], "densities.density"),
        (["--tasks", "zelk", "--density", "1.5"], "densities.density"),
        (["--tasks", "zelk", "--density", "0.0001"], "the density limit leaves 4 entries of B for 21 layers"),
        (["--tasks", "zelk", "--temperature", "0"], "densities.temperature"),
        (["--tasks", "zelk", "--rule", "uniform"], "'entropy' or 'softmax'"),
        (["--tasks", "zelk", "--rank", "97"], "rank 97 exceeds"),
        (["--tasks", "zelk", "--prompts", "0"], "train_examples"),
        (["--tasks", "zelk", "--data", "/nowhere"], "no directory /nowhere"),
        (["--tasks", "zelk", "--model", "/nowhere/model"], "no directory /nowhere/model"),
    ],
)
def test_a_mistake_in_densities_is_one_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    result = orthomesh("densities", *words, "--out", str(tmp_path / "never"))
    assert (result.exit_code, said in result.output, "Traceback" in result.output) == (2, True, False)
    assert not (tmp_path / "never").exists()
