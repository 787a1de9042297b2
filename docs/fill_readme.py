"""Write the generated blocks of README.md: the table of methods, and the result table from its raw file.

python docs/fill_readme.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def effect() -> str:
    """The result table of `benchmarks/results/default_effect.json`, and how it was made."""
    found = json.loads((ROOT / "benchmarks/results/default_effect.json").read_text("utf-8"))
    how = (
        f"{len(found['items']):,} held-out items, seeds {found['seeds'][0]} to {found['seeds'][-1]}, {found['date']}, "
        f"commit {found['commit']}; percent right, differences paired by item and seed. {found['tried']}"
    )
    return "\n".join([*found["table"], "", how])


def methods() -> str:
    """What `stillhouse methods --markdown` prints."""
    command = [sys.executable, "-m", "pipeline", "methods", "--markdown"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def filled(page: str) -> str:
    """The page with its blocks written anew."""
    for name, text in (("effect", effect()), ("methods", methods())):
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(pattern, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page, flags=re.S)
        if count != 1:
            raise SystemExit(f"README.md has {count} blocks called {name}; it must have one")
    return page


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text("utf-8")), "utf-8")
