"""Run directories: one a seed, gone on with only where the settings are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orthomesh.experiment import Experiment
from orthomesh.methods import MethodSettings
from orthomesh.methods.fair import Fair
from orthomesh.methods.fedsb import FedSb
from orthomesh.methods.fly import Fly
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.local import Local
from orthomesh.presets import of_run
from orthomesh.reproduction.runs import begin, broken_down, claimed, computed_on, runs_of, there
from orthomesh.tasks.settings import TaskSettings

X = Experiment(seed=5, tasks=TaskSettings(names=("zelk",)), methods={"local": Local()})


def test_every_method_has_a_directory_for_each_seed_and_number_of_devices() -> None:
    both = replace(X, methods={"local": Local(), "gossip": GossipLora()})
    found = runs_of(both, Path("out"), 2)
    assert [str(d) for d in found] == ["out/local/seed5", "out/gossip/seed5", "out/local/seed6", "out/gossip/seed6"]
    assert all(list(x.methods) == [d.parent.name] and f"seed{x.seed}" == d.name for d, x in found.items())
    many = runs_of(X, Path("out"), 1, (2, 10))
    assert [(str(d), x.devices) for d, x in many.items()] == [
        ("out/devices02/local/seed5", 2),
        ("out/devices10/local/seed5", 10),
    ]


def test_a_run_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path / "a") as first, claimed(tmp_path / "a") as second, claimed(tmp_path / "b") as other:
        assert (first, second, other) == (True, False, True)
    with claimed(tmp_path / "a") as again:
        assert again


def test_where_a_run_is_computed_does_not_make_it_another(tmp_path: Path) -> None:
    place = tmp_path / "seed5"
    begin(place, X)
    assert there({place: X}) == {}
    (place / "summary.json").write_text("{}")
    assert list(there({place: replace(X, workers=2, engine="ray", ray_address="auto"), tmp_path / "seed6": X})) == [
        place
    ]


def test_finished_runs_of_several_kinds_of_device_belong_together_and_it_is_said(tmp_path: Path) -> None:
    on_gpu = replace(X, model=replace(X.model, device="cuda"))
    runs = {tmp_path / f"seed{n}": replace(on_gpu if n else X, seed=n) for n in range(3)}
    for place, x in runs.items():
        begin(place, x)
    with pytest.raises(ValueError, match=r"other settings \(model.device\)"):
        begin(tmp_path / "seed0", replace(on_gpu, seed=0))  # half of it was computed elsewhere
    for place in runs:
        (place / "summary.json").write_text("{}")
    asked = {place: replace(X, seed=x.seed) for place, x in runs.items()}
    assert list(there(asked)) == list(runs)
    assert computed_on(asked) == [
        "computed on cuda, but on cpu local (seed 0): sums are rounded in another order there"
    ]
    assert computed_on({place: x for place, x in asked.items() if x.seed}) == []


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    place = tmp_path / "seed5"
    assert not begin(place, X)
    assert not begin(place, X)
    (place / "summary.json").write_text("{}")
    assert begin(place, X)
    with pytest.raises(ValueError, match=r"other settings \(rounds, train.steps\); give the same ones"):
        begin(place, replace(X, rounds=9, train=replace(X.train, steps=3)))


@pytest.mark.parametrize(
    ("now", "before", "setting"),
    [
        (Fly(), Fly(balance=0.0), "balance"),
        (Fair(), Fair(similarity="ridge"), "similarity"),
        (FedSb(), FedSb(start="seed"), "start"),
    ],
)
def test_a_run_older_than_a_setting_is_what_the_method_was_then(
    tmp_path: Path, now: MethodSettings, before: MethodSettings, setting: str
) -> None:
    place = tmp_path / "seed5"
    begin(place, replace(X, methods={"one": now}))
    values = yaml.safe_load((place / "config.yaml").read_text())
    del values["methods"]["one"][setting]
    (place / "config.yaml").write_text(yaml.safe_dump(values))
    assert not begin(place, replace(X, methods={"one": before}))
    assert of_run(place).methods == {"one": before}
    with pytest.raises(ValueError, match=rf"other settings \(methods.one.{setting}\)"):
        begin(place, replace(X, methods={"one": now}))


@pytest.mark.parametrize("last", ["versions.json", "config.yaml"])
@pytest.mark.parametrize("written", [False, True])
def test_what_a_kill_at_the_beginning_leaves_is_gone_on_with(
    last: str, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes before the last file gets its name, and before or after its bytes."""

    def killed(old: Path, new: Path) -> None:
        if new.name == last:
            Path(old).write_bytes(Path(old).read_bytes() if written else b"")
            raise KeyboardInterrupt
        Path(old).rename(new)

    with monkeypatch.context() as now:
        now.setattr("orthomesh.checkpoint.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, X)
    assert not (tmp_path / "config.yaml").exists()
    assert not begin(tmp_path, X)
    assert of_run(tmp_path).methods == X.methods
    assert (tmp_path / "versions.json").is_file()


@pytest.mark.parametrize("name", ["letters.txt", ".letters", "letters.new", ".folder.new/letter", "versions.json/one"])
def test_a_foreign_directory_is_left_alone(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("dear")
    there_now = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="something else than a run"):
        begin(tmp_path, X)
    assert sorted(tmp_path.rglob("*")) == there_now


@pytest.mark.parametrize("name", [".versions.json.new", ".config.yaml.new", ".config.yaml.new-812-3f"])
def test_a_half_written_beginning_beside_letters_is_not_a_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("na")
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="something else than a run"):
        begin(tmp_path, X)
    (tmp_path / "letters.txt").unlink()
    assert not begin(tmp_path, X)


def test_a_method_without_experts_has_no_breakdown(tmp_path: Path) -> None:
    assert broken_down(tmp_path, X, "local") is None
    assert broken_down(tmp_path, X, "nobody") is None
