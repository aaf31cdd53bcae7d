"""Templates of a systemd unit and a Dockerfile; docs/deployment.md explains them."""

from __future__ import annotations

from typing import Final

UNIT: Final = """\
# /etc/systemd/system/{name}.service
# For systemd 253 or later; docs/deployment.md has the settings for older versions.

[Unit]
Description={name} under trio_supervisor
After=network-online.target
Wants=network-online.target

[Service]
Type=notify-reload
ExecStart={command}
WorkingDirectory={directory}
Environment=TRIO_SUPERVISOR_SOCKET=%t/{name}/supervisor.ipc

# SIGTERM goes only to the controller, which stops its workers in order; what remains
# after the timeout is killed. It is the sum of stop_timeout along the longest chain of
# dependencies, and some seconds more.
KillMode=mixed
TimeoutStopSec={stop_time}
TimeoutStartSec={start_time}

# If the controller hangs, start everything again.
WatchdogSec=30
Restart=on-failure
RestartSec=1
# Mistakes that another start does not fix: declaration, socket path, platform.
RestartPreventExitStatus=2 10 12 14
# If one worker runs out of memory, the controller replaces it and the others keep
# running.
OOMPolicy=continue
{delegate}# Keeps listening sockets open while the service is restarted.
FileDescriptorStoreMax=64

{user}
UMask=0077
RuntimeDirectory={name}
StateDirectory={name}
LimitNOFILE=65536

# Sandboxing. MemoryDenyWriteExecute= is left out because it breaks run-time compilers,
# ProcSubset=pid because it hides the size of the machine's memory.
CapabilityBoundingSet={capabilities}
LockPersonality=yes
NoNewPrivileges={no_new_privileges}
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups={protect_cgroups}
ProtectHome={protect_home}
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
{writable}RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""

DELEGATE: Final = """\
# Some services have limits: the controller makes a cgroup for each of their workers.
Delegate=yes
"""

DOCKERFILE: Final = """\
# syntax=docker/dockerfile:1
FROM python:{python}-slim AS build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
RUN --mount=type=cache,target=/root/.cache/pip pip install trio_supervisor
{install}
FROM python:{python}-slim
COPY --from=build /venv /venv
# List in .dockerignore what does not belong in the image: .git, .env, secrets.
COPY . /application/
WORKDIR /application
# /tmp is the only writable directory if the root file system is read-only.
ENV PATH=/venv/bin:$PATH \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1 \\
    TRIO_SUPERVISOR_SOCKET=/tmp/supervisor.ipc
# Any other number works too; it needs no entry in /etc/passwd and no home directory.
USER 10001:10001
EXPOSE {ports}
# Use the list form: a shell in between would not pass on signals.
ENTRYPOINT ["python", "-m", "trio_supervisor"]
CMD ["serve", {target}, "--http", ":8080", "--log-format", "json"]
# Used by Docker only; Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \\
    CMD ["python", "-m", "trio_supervisor", "probe", "readiness"]
"""
