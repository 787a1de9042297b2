"""What the package ships beside its code: map, recipes, embedded models. `setup.py` runs this file by itself."""

from pathlib import Path

# Of an installed package they lie in this folder beside it; of a clone, where they are.
FOLDER = "stillhouse"
FILES = (
    "dvc.yaml", "params.yaml", "prefect.yaml", ".gitignore", ".dvcignore", ".dvc/.gitignore", ".dvc/config",
    "recipes/*.yaml", "data/README.md", "data/*/.gitkeep", "data/embedded/README.md", "data/embedded/*/*",
)  # fmt: skip


def files(root: Path) -> list[Path]:
    """The files that are shipped, relative to the folder that they lie in."""
    return sorted(file.relative_to(root) for pattern in FILES for file in root.glob(pattern) if file.is_file())


def place() -> Path:
    """The folder that they lie in."""
    beside = Path(__file__).parents[2]
    return beside / FOLDER if (beside / FOLDER).is_dir() else beside
