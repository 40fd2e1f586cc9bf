"""Where tasks come from and how many examples of each are used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskSettings:
    """The tasks of a run; device i has task i modulo their number, and its own share of the examples."""

    names: tuple[str, ...] = ()
    """Tasks by name, in order; empty: all embedded ones."""
    data: str = ""
    """Directory with NAME/train.jsonl and NAME/test.jsonl (or .jsonl.gz), or with copies of the paper's data sets as
    NAME; `hub` for the paper's data sets by our names (boolq, piqa, ...) and others by theirs; empty for the embedded
    tasks."""
    train_examples: Annotated[int, Field(ge=1)] = 600
    """Training examples a device, at most; a task with fewer gives what it has."""
    test_examples: Annotated[int, Field(ge=1)] = 100
    """Test examples a task, at most."""
    prompt_column: str = "instruction"
    """Column of a row that holds the prompt."""
    answer_column: str = "output"
    """Column of a row that holds the text to produce."""
