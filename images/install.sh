#!/bin/sh
# Makes /opt/hpc inside the image: an environment over the image's own Python, whose torch stays as it is.
set -eu
cd "$(dirname "$0")"
python3 -m venv --system-site-packages --without-pip /opt/hpc
cp -R hpc/. "$(/opt/hpc/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
printf '#!/opt/hpc/bin/python3\nfrom hpc.cli import main\n\nmain()\n' >/opt/hpc/bin/hpc
chmod 755 /opt/hpc/bin/hpc
/opt/hpc/bin/python3 -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >constraints.txt

set -- --requirement requirements.txt
if [ -f project/pyproject.toml ] || [ -f project/setup.py ]; then
    set -- "$@" ./project
elif [ -f project/requirements.txt ]; then
    set -- "$@" --requirement project/requirements.txt
fi
python3 -m pip --python /opt/hpc/bin/python3 install --no-cache-dir --constraint constraints.txt "$@"
