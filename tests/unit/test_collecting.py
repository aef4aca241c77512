"""What a program has loaded costs no search for garbage, and what it makes from then on is searched as ever."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from fuseline.collecting import keep_what_is_loaded, search_seldom

class Cycle:
    def __init__(self):
        self.itself = self

before = Cycle()
keep_what_is_loaded()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert not any(one is before for one in gc.get_objects())
gone = weakref.ref(Cycle())
gc.collect()
assert gone() is None

search_seldom()
gone = weakref.ref(Cycle())
many = []
while gone() is not None:  # it is found without being looked for
    many.append([])
assert 1000 < len(many) < 10_000, len(many)

search_seldom(20_000)
gone = weakref.ref(Cycle())
many = []
while gone() is not None:
    many.append([])
assert 15_000 < len(many) < 30_000, len(many)
"""


def test_what_is_loaded_is_kept_and_what_comes_later_is_collected() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
