"""Begins a task: the code that was submitted is compared with its digest, and does the rest (hpc/run/enter.py)."""

import sys

sys.path[:] = filter(None, sys.path)  # the working directory may have modules of these names
import hashlib
import io
import types
import zipfile
from pathlib import Path

path, digest = sys.argv[1:3]
try:
    data = Path(path).read_bytes()
    reason = "" if hashlib.sha256(data).hexdigest() == digest else "it has changed since"
except OSError as error:
    reason = error.strerror
if reason:
    told = f"{path} must hold the code that was submitted, but does not ({reason}): restore it, or submit again."
    print(f"hpc: {told}", file=sys.stderr)
    sys.exit(65)
enter = sys.modules["hpc_enter"] = types.ModuleType("hpc_enter")
enter.archive, enter.digest = zipfile.ZipFile(io.BytesIO(data)), digest
exec(enter.archive.read("hpc-enter.py"), vars(enter))
