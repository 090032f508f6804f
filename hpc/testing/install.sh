#!/bin/sh
# Installs what the tests on Slurm need to start a real one on this machine: Debian 12 or later, or a Debian-like system.
# Quick when everything is there. The packages' own services are not started: the tests start their own daemons.
set -eu

packages="slurmctld slurmd slurm-client slurmdbd slurm-wlm-basic-plugins slurm-wlm-mysql-plugin munge mariadb-server iproute2"
# Launchers to be found inside a job: both versions of mpirun, by name, and the library that srun --mpi=pmix loads.
packages="$packages openmpi-bin mpich libpmix-dev"
# Containers without root and without a registry.
packages="$packages charliecloud-runtime"

missing=""
for package in $packages; do
    # A package that was removed but left its configuration has a status too, hence the exact words.
    status=$(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

# A person's machine without root or apt runs all other tests; pytest skips these and names them.
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Tests on a real Slurm will be skipped: installing$missing needs root and apt-get." >&2
    exit 0
fi

# invoke-rc.d asks this file whether a service may start; 101 forbids it. A file that is already there is the machine's.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

install() {
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
}

# Package lists that are absent or out of date make the first attempt fail within a second or two.
install || { apt-get update && install; }
