"""Logits on emulated CPUs without VNNI equal exact sums; earlier bundles need inputs in 7 bits."""

import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax, row_kl
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.weights import session
from tests.conftest import Bundles

Array = NDArray[np.float32]
IDS = list(range(20, 36))
SCRIPT = """
import sys
import numpy as np
from issun.runtime import Model
from issun.runtime.weights import session
out, bits, *bundles = sys.argv[1:]
if bits == "8":
    session.integer_matmul_saturates = lambda: False
else:
    print(session.integer_matmul_saturates())
found = {{}}
for bundle in bundles:
    with Model.load(bundle, threads=1) as model:
        found[bundle] = model.score({ids})
np.savez(out, **found)
"""
PRECISIONS = ("float32", "int8", "int4")

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64",
    reason="needs an x86-64 machine with qemu-x86_64 (Debian: apt-get install qemu-user)",
)


def score_emulated(
    cpu: str, bundles: list[Path], out: Path, *, bits: str = "as needed"
) -> tuple[str, list[Array]]:
    # A virtual environment's python is a symlink; the emulator needs the real one.
    interpreter = os.path.realpath(sys.executable)
    path = os.pathsep.join(["", *(p for p in sys.path if p)])
    # A core type configured for this machine may not exist on the emulated CPU.
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    # Editable installs use .pth files, which are only read from site-packages.
    start = "import site, sys; [site.addsitedir(p) for p in sys.path if 'site-packages' in p]\n"
    done = subprocess.run(
        [
            *("qemu-x86_64", "-cpu", cpu, interpreter, "-c", start + SCRIPT.format(ids=IDS)),
            *(str(out), bits, *map(str, bundles)),
        ],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with np.load(out) as found:
        return done.stdout.decode().strip(), [found[str(bundle)] for bundle in bundles]


def exact(path: Path, *, bits: int = 8) -> Array:
    """Logits with integer inputs of 7 or 8 bits and sums that do not overflow on any CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "integer_matmul_saturates", lambda: True)
        patch.setattr(session, "sums_fit", lambda graph: False)
        if bits == 8:  # ONNX Runtime then has an exact kernel
            patch.setattr(session, "reduce_range", lambda graph: False)
        with Model.load(path, threads=1) as model:
            return model.score(IDS)


# The SSE-only kernel adds in 32 bits.
@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "saturates"), [("Haswell-noTSX", "True"), ("Nehalem", "False")])
def test_logits_are_those_of_exact_sums(
    cpu: str, saturates: str, bundle: Bundles, ja_small: Bundles, tmp_path: Path
) -> None:
    # Nehalem's kernels round differently, which random weights amplify: use a trained model there.
    make = ja_small if cpu == "Nehalem" else partial(bundle, "head-8")
    bundles = [make(precision) for precision in PRECISIONS]
    found, emulated = score_emulated(cpu, bundles, tmp_path / "logits.npz")
    assert found == saturates
    for precision, path, theirs in zip(PRECISIONS, bundles, emulated, strict=True):
        ours = exact(path)
        off = np.abs(theirs - ours).max(-1)
        if precision == "float32":
            assert off.max() < 1e-4
        assert row_kl(log_softmax(ours), log_softmax(theirs)).mean() <= 0.0005, precision
        assert off.max() <= 0.03 * np.abs(ours).max(), precision
        second, best = np.sort(ours)[:, -2:].T
        sure = best - second > 2 * off
        assert sure.sum() > len(IDS) / 2
        assert (theirs.argmax(-1) == ours.argmax(-1))[sure].all(), precision


@pytest.mark.parametrize("bits", [8, pytest.param(7, marks=pytest.mark.slow)])
def test_an_earlier_bundle_is_right_with_inputs_of_7_bits_only(bits: int, tmp_path: Path) -> None:
    used = "8" if bits == 8 else "as needed"
    _, (theirs,) = score_emulated("Haswell-noTSX", [EMBEDDED], tmp_path / "logits.npz", bits=used)
    off = np.abs(theirs - exact(EMBEDDED, bits=bits)).max()
    assert (off > 0.1) == (bits == 8), off
