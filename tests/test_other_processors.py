"""Values stored on one machine are reproduced on others, here with the instructions of an older processor.

What torch's libraries may use is cut down by their own variables; a process that started without them cannot do it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "SPARSECODE_ENGINE": "scalar",
}
# Every test that reads numbers which torch computed elsewhere.
TESTS = (
    "dictionary/test_files.py::test_a_file_of_format_1_still_reads_and_does_the_same",
    "interop/test_formats.py::test_it_encodes_and_decodes_as_its_library_does",
)


def test_stored_values_are_met_by_an_older_processor() -> None:
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(folder / test) for test in TESTS)]
    done = subprocess.run(command, cwd=folder.parent, env=os.environ | OLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
