"""The build: a wheel has its packages, and in a folder `stillhouse` what `stillhouse new` makes a workspace of."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = runpy.run_path("pipeline/core/shipped.py")
FILES = [str(file) for file in SHIPPED["files"](Path())]


class Build(build_py):
    """Packages, and what they ship."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file in FILES:
                place = Path(self.build_lib, SHIPPED["FOLDER"], file)
                self.mkpath(str(place.parent))
                self.copy_file(file, str(place))

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *FILES, "pipeline/core/shipped.py"]


setup(cmdclass={"build_py": Build})
