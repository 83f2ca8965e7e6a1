"""Build the wheel, install it into an empty environment and use it from outside the checkout.

The environment borrows the dependencies of the one that runs this script, so that nothing is downloaded; the
package itself comes from the wheel alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SENSOR = ("sensor_hw=[128,128]", "device=cpu", "progress=false")
STAR = """
import numpy as np
from eventclip import write_events
from eventclip.datasets.symbols import simulate_symbol
write_events("star.npy", simulate_symbol("star", (128, 128), np.random.default_rng(7)))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    # PYTHONPATH would let the checkout pass for the wheel.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"wheel-check: {' '.join(map(str, command))} failed\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Fail with the command's output if any step fails."""
    with tempfile.TemporaryDirectory(prefix="eventclip-wheel-") as folder:
        away = Path(folder)
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", away, ROOT, cwd=away)
        (wheel,) = away.glob("*.whl")
        venv.create(away / "env", with_pip=False)
        python = away / "env" / "bin" / "python"
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel, cwd=away)
        own = _run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=away).strip()
        (Path(own) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        config_dir = _run(
            python, "-c", "import eventclip.config.composition as c; print(c.CONFIG_DIR)", cwd=away
        ).strip()
        if Path(config_dir) != Path(own) / "eventclip" / "conf":
            raise SystemExit(f"wheel-check: the configuration came from {config_dir}, not from the wheel")
        script = away / "env" / "bin" / "eventclip"
        if "train" not in _run(script, cwd=away):
            raise SystemExit("wheel-check: eventclip does not list its commands")
        composed = _run(script, "train", "--cfg", "job", "experiment=fewshot_ncaltech", cwd=away)
        if "eventclip.datasets.ncaltech101.NCaltech101DataModule" not in composed:
            raise SystemExit(f"wheel-check: experiment=fewshot_ncaltech composed to something else\n{composed}")
        _run(python, "-c", "import eventclip; [getattr(eventclip, name) for name in eventclip.__all__]", cwd=away)
        _run(python, "-c", STAR, cwd=away)
        for clip in ("tiny", "tiny_aligned"):
            words = ("recordings=star.npy", f"clip={clip}", "classes=[star,anchor]", *SENSOR)
            table = _run(script, "predict", *words, cwd=away)
            if ",star," not in table:
                raise SystemExit(f"wheel-check: predict with clip={clip} takes a star for something else\n{table}")
        sys.stdout.write(f"wheel-check: {wheel.name} works outside the checkout\n")


if __name__ == "__main__":
    main()
