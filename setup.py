"""What pyproject.toml cannot say: a wheel carries the sweep files, which lie beside the packages, inside one of them."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SWEEPS, WITHIN = Path("sweeps"), "ablations/sweeping/files"


class BuildWithSweeps(build_py):
    """Copies the packages, and the sweep files into one of them; an editable installation reads them where they are."""

    def run(self) -> None:
        super().run()
        for source, target in self._sweeps().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._sweeps().values()]

    def _sweeps(self) -> dict[str, str]:
        """{file: where it goes}."""
        files = [] if self.editable_mode else sorted(SWEEPS.glob("*.yaml"))
        return {str(path): str(Path(self.build_lib, WITHIN, path.name)) for path in files}


setup(cmdclass={"build_py": BuildWithSweeps})
