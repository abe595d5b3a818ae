"""The planted defects of tests/mutants.toml fit the code as it is, so that `make mutants` never stops at one."""

import re
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DEFECTS = tomllib.loads((TESTS / "mutants.toml").read_text(encoding="utf-8"))["defect"]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect["name"])
def test_a_defect_has_its_place_in_the_code_and_a_test_that_exists(defect):
    text = (TESTS.parent / "src" / "thumbnet" / defect["file"]).read_text(encoding="utf-8")
    assert text.count(defect["old"]) == 1 and defect["new"] != defect["old"]
    file, _, test = defect["test"].partition("::")
    file, _, part = file.partition(" -k ")
    named = test.partition("[")[0] or part
    assert named and re.search(rf"def \w*{re.escape(named)}", (TESTS.parent / file).read_text(encoding="utf-8"))
