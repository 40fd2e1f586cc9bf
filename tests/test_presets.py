"""Settings by name, file and override: what lies over what, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experiment import Experiment
from orthomesh.methods import METHODS, TIED
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.local import Local
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.presets import PRESETS, build, explain, from_plain, plain, read_yaml


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a run.yaml and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


# example


def test_a_file_lies_over_the_preset_and_overrides_over_the_file(write: Any) -> None:
    file = write("train: {steps: 7, batch_size: 3}\nrounds: 9\n")
    x = build("default", file, ["train.steps=11", "seed=5"])
    assert (x.train.steps, x.train.batch_size, x.rounds, x.seed) == (11, 3, 9, 5)
    default = PRESETS["default"]()
    assert x.train.learning_rate == default.train.learning_rate
    assert x.methods == default.methods


def test_the_last_override_counts() -> None:
    assert build("smoke", None, ["rounds=3", "rounds=4"]).rounds == 4
    x = build("smoke", None, ["train={steps: 3}", "train.batch_size=2"])
    assert (x.train.steps, x.train.batch_size) == (3, 2)


def test_a_file_without_overrides_and_nothing_at_all(write: Any) -> None:
    assert build("paper", None, []) == PRESETS["paper"]()
    assert build("paper", write("name: mine\n"), []).name == "mine"


def test_a_method_s_settings_are_changed_one_by_one() -> None:
    x = build("default", None, ["methods.orthomesh.density=0.5"])
    assert x.methods["orthomesh"] == SparseOrthogonal(density=0.5)
    assert x.methods["paper"] == paper_reading()


def test_a_method_of_another_kind_is_replaced_and_not_mixed() -> None:
    x = build("default", None, ["methods.orthomesh={kind: gossip_lora, num_neighbours: 1}"])
    assert x.methods["orthomesh"] == GossipLora(num_neighbours=1)
    assert build("default", None, ["methods.paper.kind=local"]).methods["paper"] == Local()


def test_null_removes_a_method_and_a_new_label_adds_one() -> None:
    x = build("default", None, ["methods.local=null", "methods.dense={kind: sparse_orthogonal, density: 1.0}"])
    assert list(x.methods) == ["gossip", "orthomesh", "paper", "dense"]
    assert x.methods["dense"] == SparseOrthogonal(density=1.0)
    assert build("default", None, [f"methods.{label}=null" for label in PRESETS["default"]().methods]).methods == {}


def test_the_paper_preset_takes_the_paper_s_side() -> None:
    x = PRESETS["paper"]()
    assert x.methods["paper"] == paper_reading()
    assert x.radio.noise == "fixed"
    assert x.radio.min_efficiency_bps_per_hz == 0.0


def test_smoke_is_the_default_made_small() -> None:
    small, full = PRESETS["smoke"](), PRESETS["default"]()
    assert small.methods == full.methods
    assert small.channel == full.channel
    assert small.rounds * small.train.steps < full.rounds * full.train.steps
    assert small.tasks.test_examples < full.tasks.test_examples


# law


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_printed_reads_back(preset: str) -> None:
    x = PRESETS[preset]()
    assert from_plain(plain(x), "x") == x
    assert from_plain(yaml.safe_load(yaml.safe_dump(plain(x))), "x") == x
    assert from_plain(yaml.safe_load(explain(x)), "x") == x


@given(
    st.fixed_dictionaries(
        {
            "rounds": st.integers(1, 99),
            "seed": st.integers(0, 2**31),
            "train.steps": st.integers(1, 999),
            "train.learning_rate": st.floats(1e-6, 1.0),
            "radio.deadline_s": st.floats(1e-3, 1e3),
            "methods.gossip.num_neighbours": st.integers(0, 9),
        }
    ),
    st.permutations(range(6)),
)
def test_overrides_of_different_settings_may_come_in_any_order(values: dict[str, Any], order: list[int]) -> None:
    said = [f"{name}={value!r}" for name, value in values.items()]
    x = build("default", None, [said[n] for n in order])
    assert x == build("default", None, said)
    assert (x.rounds, x.train.steps, x.radio.deadline_s) == (
        values["rounds"],
        values["train.steps"],
        values["radio.deadline_s"],
    )
    assert x.train.learning_rate == values["train.learning_rate"]
    assert x.methods["gossip"].num_neighbours == values["methods.gossip.num_neighbours"]


def test_laying_over_changes_neither_layer(write: Any) -> None:
    before = plain(PRESETS["default"]())
    build("default", write("train: {steps: 1}"), ["train.steps=2", "methods.local=null"])
    assert plain(PRESETS["default"]()) == before


# edge


def test_a_method_without_a_topology_says_why() -> None:
    """Each that cannot choose one has its reason, and no other."""
    assert TIED.keys() == {kind for kind, made in METHODS.items() if "topology" not in made.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"methods\.x\.topology: choco has none to choose, differences only add up"):
        build("default", None, ["methods.x={kind: choco, topology: ring}"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trian.steps=3"], "settings.trian: there is no such setting. Did you mean 'train'?"),
        (["train.stesp=3"], "settings.train.stesp: there is no such setting. Did you mean 'steps'?"),
        (["methods.orthomesh.densty=1"], "settings.methods.orthomesh.densty: there is no such setting. Did you mean"),
        (["methods.gossip={kind: gosip_lora}"], "settings.methods.gossip.kind: there is no method 'gosip_lora'. Did"),
        (["methods.new={density: 0.5}"], "settings.methods.new: a method needs its kind, one of local, "),
        (["methods.new=3"], "settings.methods.new: a method needs its kind"),
        (["methods=[local]"], "settings.methods: a mapping of labels to settings belongs here, got ['local']"),
        (["methods.base={kind: local}"], "settings.methods.base: a label is made of letters"),
        (["methods.oracle={kind: local}"], "settings.methods.oracle: a label is made of letters"),
        (["methods={a/b: {kind: local}}"], "settings.methods.a/b: a label is made of letters"),
        (["methods={'': {kind: local}}"], "settings.methods.: a label is made of letters"),
        (["train.steps=many"], "settings.train.steps: "),
        (["train.steps=0"], "settings.train.steps: "),
        (["train=5"], "settings.train: "),
        (["train=null"], "settings.train: "),
        (["radio.deadline_s=.inf"], "settings.radio.deadline_s: "),
        (["rounds=2.5"], "settings.rounds: "),
        (["rounds"], "--set rounds: write it as key=value"),
        (["=3"], "--set =3: write it as key=value"),
        (["rounds=[1"], "--set rounds is not YAML"),
        (["train={steps: 3, steps: 4}"], "--set train: steps stands twice, in lines 1 and 1"),
        (["name=\udcff"], "--set name is not YAML"),  # an argument that is no UTF-8
    ],
)
def test_a_mistake_is_told_with_its_place(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        build("default", None, overrides)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_mistyped_label_is_told_the_near_one() -> None:
    with pytest.raises(
        ValueError, match=r"orthomehs: did you mean the label 'orthomesh'\? a method needs its kind, one of local, "
    ):
        build("default", None, ["methods.orthomehs.masks=independent"])


def test_a_mistake_in_a_file_is_told_with_the_file(write: Any) -> None:
    file = write("trian: {steps: 3}\n")
    with pytest.raises(ValueError, match=r"run\.yaml\.trian: there is no such setting\. Did you mean 'train'\?"):
        build("default", file, [])


def test_an_unknown_preset_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no preset 'defautl'\. Did you mean 'default'\?"):
        build("defautl", None, [])
    with pytest.raises(ValueError, match="Known: default, paper, smoke"):
        build("zzz", None, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "settings are a mapping of keys to values, got list"),
        ("", "settings are a mapping of keys to values, got NoneType"),
        ("just words", "settings are a mapping of keys to values, got str"),
        ("a: [1\n", r"run\.yaml is not YAML"),
        ("a: 1\nb: 2\na: 1\n", r"run\.yaml: a stands twice, in lines 1 and 3; keep one"),
        ("train:\n  steps: 3\n  'steps': 4\n", r"run\.yaml: train\.steps stands twice, in lines 2 and 3"),
        ("a: [1, {b: 2, c: {d: 1, d: 2}}]\n", r"run\.yaml: a\[1\]\.c\.d stands twice, in lines 1 and 1"),
        ("a: &a {b: 1, b: 2}\nc: *a\n", r"run\.yaml: a\.b stands twice"),
    ],
)
def test_a_file_that_holds_no_settings(text: str, said: str, write: Any) -> None:
    with pytest.raises(ValueError, match=said):
        read_yaml(write(text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.yaml is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")


def test_yaml_never_builds_objects(write: Any) -> None:
    with pytest.raises(ValueError, match="is not YAML"):
        read_yaml(write("name: !!python/object/apply:os.getcwd []\n"))


def test_keys_that_are_no_text_are_refused(write: Any) -> None:
    for text in ("3: 4\n", "train: {3: 4}\n", "methods: {gossip: {3: 1}}\n"):
        with pytest.raises(ValueError, match=r"run\.yaml.*\.3: keys should be strings, got 3"):
            build("default", write(text), [])


def test_settings_without_methods_are_settings() -> None:
    assert from_plain({"rounds": 2}, "x") == Experiment(rounds=2)
