"""The installed wheel works outside the checkout."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_composes_outside_the_checkout():
    script = ROOT / "tools" / "wheel_check.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "works outside the checkout" in done.stdout
