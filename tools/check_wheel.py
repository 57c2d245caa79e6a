"""Build wheel and sdist, install each in an environment of its own, and try what it installs.

    python -m tools.check_wheel           # dependencies come from the environment that runs this
    python -m tools.check_wheel --empty   # pip installs the dependencies too, as constraints.txt pins them

Checks that the wheel is small and holds neither bases nor tests, and that the installed `drpo` trains, inspects what it
logged, and says where to get a base that it does not carry. Exit status 1 with the reason if anything is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

from tools import ROOT

#: Bytes of a wheel at most.
MOST = 4_000_000
#: What belongs to a clone alone, as it would stand in a wheel.
CLONE_ONLY = ("bases/", "tests/", "tools/", "examples/", "results/", "drpo/assets/dense", "drpo/assets/moe")
RUN = ["steps=1", "prompts_per_step=2", "group_size=2", "updates_per_step=1", "max_new_tokens=8", "eval_examples=2"]


def main() -> None:
    """Build, look, install, try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--empty", action="store_true", help="install the dependencies too (minutes)")
    empty = parser.parse_args().empty
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder) / "dist"
        call([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], Path(folder))
        (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        look(wheel)
        for package in (wheel, sdist):
            place = Path(folder) / package.suffix.removeprefix(".")
            try_out(set_up(package, place, empty), place)
            print(f"{package.name}: {package.stat().st_size:,} bytes, installed and tried")


def look(wheel: Path) -> None:
    """Refuse a wheel that is large, or holds what belongs to a clone."""
    if wheel.stat().st_size > MOST:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes; at most {MOST:,} are allowed")
    names = zipfile.ZipFile(wheel).namelist()
    if wrong := [name for name in names if name.startswith(CLONE_ONLY)]:
        sys.exit(f"{wheel.name} holds {wrong[0]}, which belongs to a clone")
    for name in ("drpo/py.typed", "drpo/assets/arithmetic/model.safetensors", "drpo/recipes/studies/smoke.yaml"):
        if name not in names:
            sys.exit(f"{wheel.name} lacks {name}")


def set_up(package: Path, place: Path, empty: bool) -> Path:
    """The folder of the programs of a new environment that has ``package``."""
    venv.create(place / "env", with_pip=True)
    programs = place / "env" / "bin"
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if empty:
        call([*pip, "-c", str(ROOT / "constraints.txt"), f"{package}[train]"], place)
        return programs
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = place / "env" / "lib" / version / "site-packages" / "shared.pth"
    # A clone that is installed for editing is found through a .pth file, which is not read a second time.
    shared.write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    call([*pip, "--no-deps", "--force-reinstall", str(package)], place)
    return programs


def try_out(programs: Path, place: Path) -> None:
    """The commands that a new user would type."""
    drpo, python = str(programs / "drpo"), str(programs / "python")
    where = call([python, "-c", "import drpo; print(drpo.__file__)"], place).strip()
    if not where.startswith(str(place)):
        sys.exit(f"the environment imports drpo from {where}, not from what was installed in {place}")
    call([drpo, "--version"], place)
    call([drpo, "objectives"], place)
    call([drpo, "train", *RUN, "log_tokens=true", "--out", "run"], place)
    call([drpo, "inspect", "run"], place)
    call([drpo, "train", "recipe:settings/dense-bf16", "model=embedded:arithmetic", "--dry-run"], place)
    said = call([drpo, "train", "model=embedded:dense", "--out", "other"], place, status=2)
    if "docs/bases.md" not in said:
        sys.exit(f"model=embedded:dense does not say where to get the base:\n{said}")


def call(command: list[str], folder: Path, status: int = 0) -> str:
    """Run a command in ``folder``; ends this program where its exit status is another."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != status:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
