#!/usr/bin/env bash
# A SLURM of one node, this machine, with everything it writes in one folder.
#
#   slurm.sh start DIR    prints the line that lets sbatch find it
#   slurm.sh stop DIR
#
# Needs Debian's slurm-wlm and munge, and root. Limits of memory are not enforced: that takes
# cgroups, which containers seldom hand on.
set -euo pipefail

action=${1:?start or stop}
home=$(realpath -m "${2:?a folder}")
conf=$home/slurm.conf
# Beside the ports of a SLURM that may run here already.
readonly controller_port=16817 node_port=16818

missing() {
    echo "slurm.sh: $1 is not here: apt-get install slurm-wlm munge." >&2
    exit 66
}

write_conf() {
    local node memory
    node=$(hostname -s)
    memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    cat > "$conf" <<CONF
ClusterName=onenode
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=200000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
OverTimeLimit=0
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$((memory - 512)) State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    # Without its own file, SLURM looks for cgroups although nothing here uses them.
    echo 'CgroupPlugin=cgroup/v1' > "$home/cgroup.conf"
}

start() {
    local program
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" > /dev/null || missing "$program"
    done
    mkdir -p "$home"/{state,spool,munge}
    chmod 0755 "$home" "$home/munge"
    (umask 077 && head -c 1024 /dev/urandom > "$home/munge/key")
    write_conf
    munged --force --key-file="$home/munge/key" --socket="$home/munge/socket" \
        --pid-file="$home/munge/pid" --log-file="$home/munge/log" \
        --seed-file="$home/munge/seed" 2> "$home/munge/stderr"
    slurmctld -f "$conf"
    slurmd -f "$conf"
    export SLURM_CONF=$conf
    for _ in $(seq 30); do
        if sinfo --noheader --format=%t 2> "$home/sinfo.txt" | grep -q '^idle'; then
            echo "export SLURM_CONF=$conf"
            return
        fi
        sleep 1
    done
    echo "slurm.sh: the node did not become idle; $home/slurmctld.log and slurmd.log tell why." >&2
    stop
    exit 1
}

stop() {
    local pid_file pid
    for pid_file in slurmd.pid slurmctld.pid munge/pid; do
        [[ -s $home/$pid_file ]] || continue
        pid=$(< "$home/$pid_file")
        kill "$pid" 2> /dev/null || continue
        for _ in $(seq 50); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.2
        done
    done
}

"$action"
