"""int8 on an emulated CPU without VNNI: right with the runtime's option, wrong without."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import Model
from issun.runtime.session import integer_matmul_saturates
from tests.conftest import Bundles

IDS = list(range(20, 36))
SCRIPT = """
import sys
import numpy as np
from issun.runtime import Model, session
if sys.argv[3] == "off":
    session.integer_matmul_saturates = lambda: False
else:
    print(session.integer_matmul_saturates())
model = Model.load(sys.argv[1], threads=1)
np.save(sys.argv[2], model.score({ids}))
"""

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64",
    reason="needs an x86-64 machine with qemu-x86_64 (Debian: apt-get install qemu-user)",
)


def score_emulated(cpu: str, bundle: Path, out: Path, option: str) -> str:
    # A virtual environment's python is a link; the emulator wants the real one.
    interpreter = os.path.realpath(sys.executable)
    path = os.pathsep.join(["", *(p for p in sys.path if p)])
    # Editable installs are found through .pth files, which only site packages have.
    start = "import site, sys; [site.addsitedir(p) for p in sys.path if 'site-packages' in p]\n"
    done = subprocess.run(
        [
            *("qemu-x86_64", "-cpu", cpu, interpreter, "-c", start + SCRIPT.format(ids=IDS)),
            *(str(bundle), str(out), option),
        ],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode().strip()


def test_avx2_without_vnni(bundle: Bundles, tmp_path: Path) -> None:
    if integer_matmul_saturates():
        pytest.skip("this machine has no VNNI to compare with")
    path, out = bundle("head-8"), tmp_path / "logits.npy"
    with Model.load(path, threads=1) as model:
        native = model.score(IDS)

    assert score_emulated("Haswell-noTSX", path, out, "on") == "True"
    assert np.abs(np.load(out) - native).max() < 1e-3

    score_emulated("Haswell-noTSX", path, out, "off")
    assert np.abs(np.load(out) - native).max() > 0.5, "without the option int8 is wrong there"
