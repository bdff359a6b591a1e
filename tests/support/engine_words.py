# ruff: noqa: E501 - the texts are real
"""Messages of refusals by engines, runtimes and registries, with the reason of each.

Those of Engine 20.10 were provoked here; those of later ones were checked against the sources of runc and
containerd and against public reports, up to Engine 29 (containerd's image store, CDI, runc 1.3)."""

from __future__ import annotations

#: What runc reports through the shim of Engine 20.10, which says "failed to create shim task"; later ones put "failed
#: to create task for container" before it, earlier ones name the line of runc's source.
SHIM = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
TASK = f"failed to create task for container: {SHIM}"
OLD = "OCI runtime create failed: container_linux.go:380: starting container process caused: "
INIT = "error during container init: "

#: Real texts of starts that failed: Engine 20.10.24 with runc 1.1.5 (provoked), 20.10.0 to 29 from public reports.
STARTS = {
    f'{SHIM}exec: "/noexec": permission denied: unknown': "CommandDenied",
    f'{TASK}exec: "/entrypoint.sh": permission denied: unknown': "CommandDenied",
    f'{TASK}{INIT}exec: "/entrypoint.sh": permission denied: unknown': "CommandDenied",
    f"{SHIM}exec /bin/entrypoint.sh: permission denied: unknown": "CommandDenied",
    f'{OLD}exec: "./run.sh": permission denied: unknown.': "CommandDenied",
    'OCI runtime create failed: container_linux.go:344: starting container process caused "exec: '
    '\\"/home/init.sh\\": permission denied": unknown': "CommandDenied",
    f'{TASK}exec: "/app": is a directory: permission denied: unknown': "CommandDenied",
    "crun: open executable: Permission denied: OCI permission denied": "CommandDenied",
    f'{SHIM}exec: "/nothere": stat /nothere: no such file or directory: unknown': "CommandNotFound",
    f'{SHIM}exec: "nothere": executable file not found in $PATH: unknown': "CommandNotFound",
    f'{TASK}{INIT}exec: "nonexistent": executable file not found in $PATH: unknown': "CommandNotFound",
    f'{TASK}{INIT}exec: "/nonexistent-binary": stat /nonexistent-binary: no such file or directory: unknown': (
        "CommandNotFound"
    ),
    f"{TASK}exec /app: exec format error: unknown": "CommandNotFound",
    "crun: executable file `nonexistent` not found in $PATH: No such file or directory: OCI runtime attempted to "
    "invoke a command that was not found": "CommandNotFound",
    "unable to find user appuser: no matching entries in passwd file": "UserNotFound",
    "unable to find group nogrp: no matching entries in group file": "UserNotFound",
    f"{TASK}unable to find user app: no matching entries in passwd file: unknown": "UserNotFound",
    "uids and gids must be in range 0-2147483647": "UserNotFound",
    "Cannot mkdir: /noexec is not a directory": "WorkdirInvalid",
    "the working directory 'rel' is invalid, it needs to be an absolute path": "WorkdirInvalid",
    f'{OLD}chdir to cwd ("/root/x") set in config.json failed: permission denied: unknown': "WorkdirInvalid",
    "crun: chdir to `/app`: Permission denied: OCI permission denied": "WorkdirInvalid",
    f'{SHIM}{INIT}error mounting "/etc/hostname" to rootfs at "/adir": mount /etc/hostname:/adir (via /proc/self/fd/6), '
    "flags: 0x5000: not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check "
    "if the specified host path exists and is the expected type": "MountInvalid",
    f'{TASK}{INIT}error mounting "/p.yml" to rootfs at "/etc/p.yml": create mountpoint for /etc/p.yml mount: cannot '
    'create subdirectories in "/var/lib/docker/overlay2/c1/merged/etc/p.yml": not a directory: unknown': "MountInvalid",
    f'{OLD}process_linux.go:545: container init caused: rootfs_linux.go:75: mounting "/config.php" to rootfs at '
    '"/var/config.php" caused: mount through procfd: not a directory: unknown': "MountInvalid",
    f'{SHIM}{INIT}error mounting "/tmp" to rootfs at "/proc/x": "/var/lib/docker/overlay2/e6/merged/proc/x" cannot be '
    "mounted because it is inside /proc: unknown": "MountInvalid",
    f'{SHIM}{INIT}error mounting "/tmp" to rootfs at "/sys/x": mkdir /var/lib/docker/overlay2/e7/merged/sys/x: read-only '
    "file system: unknown": "MountInvalid",
    # Since runc 1.2 the source of a mount is opened by its parent:
    f"{TASK}{INIT}failed to fulfil mount request: open /state/models/x: no such file or directory: unknown": "MountGone",
    f"{TASK}{INIT}failed to fulfil mount request: open /repo/.git/objects: not a directory: unknown": "MountInvalid",
    f'{TASK}{INIT}error mounting "/state/models/x" to rootfs at "/opt/m": stat /state/models/x: no such file or '
    "directory: unknown": "MountGone",
    "Duplicate mount point: /x": "MountInvalid",
    "invalid mount config for type \"bind\": invalid specification: destination can't be '/'": "MountInvalid",
    f'{SHIM}{INIT}environment variable value can\'t contain null(\\x00): "A=b\\x00c": unknown': "EnvironmentInvalid",
    f"{TASK}exec /usr/bin/python3: argument list too long: unknown": "EnvironmentInvalid",
    "invalid environment variable: =x": "EnvironmentInvalid",
    f"{TASK}container init was OOM-killed (memory limit too low?): unknown": "LimitsInvalid",
    "Minimum memory limit allowed is 6MB": "LimitsInvalid",
    "Minimum memoryswap limit should be larger than memory limit, see usage": "LimitsInvalid",
    "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available": "LimitsInvalid",
    "Requested CPUs are not available - requested 77, available: 0-1": "LimitsInvalid",
    "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted": (
        "LimitsInvalid"
    ),
    f"{TASK}write /run/containerd/io.containerd.runtime.v2.task/moby/a/config.json: no space left on device: unknown": (
        "EngineDiskFull"
    ),
    f'{TASK}unable to apply cgroup configuration: cannot enter cgroupv2 "/sys/fs/cgroup/docker" with domain controllers '
    "-- it is in threaded mode: unknown": "EngineFailed",
    f"{TASK}can't get final child's PID from pipe: EOF: unknown": "EngineFailed",
    f"{TASK}{INIT}open sysctl net.ipv4.ip_unprivileged_port_start file: unsafe procfs detected: openat2 "
    "/proc/./sys/net/ipv4/ip_unprivileged_port_start: invalid cross-device link: unknown": "EngineFailed",
    "failed to set up container networking: network 0c3cd93080df5b4a not found": "NetworkGone",
    "network demo_default not found": "NetworkGone",
    "driver failed programming external connectivity on endpoint web (08bb): Bind for 0.0.0.0:80 failed: port is already "
    "allocated": "PortTaken",
    "failed to set up container networking: driver failed programming external connectivity on endpoint web (1a): failed "
    "to bind host port for 0.0.0.0:80:172.17.0.2:80/tcp: address already in use": "PortTaken",
    "failed to set up container networking: driver failed programming external connectivity on endpoint web (5483): Bind "
    "for 127.0.0.1:15002 failed: port is already allocated": "PortTaken",
    "failed to set up container networking: driver failed programming external connectivity on endpoint web (1a): failed "
    "to bind host port 0.0.0.0:53/tcp: address already in use": "PortTaken",
    'Conflict. The container name "/a" is already in use by container "0931". You have to remove (or rename) that '
    "container to be able to reuse that name.": "NameTaken",
    "failed to discover GPU vendor from CDI: no known GPU vendor found": "NoGpu",
    "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all": "NoGpu",
    'CDI device injection failed: failed to stat "/dev/nvidia-modeset": no such file or directory': "NoGpu",
    'could not select device driver "" with capabilities: [[gpu]]': "NoGpu",
    f"{TASK}{INIT}error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\n"
    "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a newer "
    "version, or use an earlier cuda container: unknown": "NoGpu",
    f'{SHIM}exec: "nvidia-container-runtime-hook": executable file not found in $PATH: unknown': "NoGpu",
    "unknown or invalid runtime name: nvidia": "NoGpu",
    # What the host lacks is no fault of the image, whatever files and commands it names:
    f"{SHIM}{INIT}unable to apply apparmor profile: apparmor failed to apply profile: write /proc/self/attr/apparmor/exec: "
    "no such file or directory: unknown": "EngineFailed",
    'OCI runtime create failed: container_linux.go:349: starting container process caused "process_linux.go:449: container '
    'init caused \\"apply apparmor profile: apparmor failed to apply profile: write /proc/self/attr/exec: permission '
    'denied\\"": unknown.': "EngineFailed",
    "AppArmor enabled on system but the docker-default profile could not be loaded: running `apparmor_parser "
    "apparmor_parser -Kr /var/lib/docker/tmp/docker-default` failed with output: Access denied. You need policy admin "
    "privileges to manage profiles.": "EngineFailed",
    f'{TASK}{INIT}error mounting "proc" to rootfs at "/proc": mount src=proc, dst=/proc, dstFd=/proc/thread-self/fd/8, '
    "flags=0xe: operation not permitted: unknown": "EngineFailed",
    f"{TASK}{INIT}error setting rlimits for ready process: error setting rlimit type 7: operation not permitted: unknown": (
        "EngineFailed"
    ),
    "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/"
    "io.containerd.runtime.v2.task/moby/a/log.json: no such file or directory): fork/exec /usr/bin/runc: no such file or "
    "directory: unknown": "EngineFailed",
    "failed to create task for container: context deadline exceeded: unknown": "EngineFailed",
    "failed to start shim: start failed: io.containerd.runc.v2: create new shim socket: listen unix /run/containerd/s/1f: "
    "bind: address already in use: exit status 1: unknown": "EngineFailed",
    'connection error: desc = "transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: '
    'connection refused": unavailable': "EngineFailed",
    f"{TASK}exec /entrypoint.sh: operation not permitted: unknown": "CommandDenied",
    "crun: open executable: Operation not permitted: OCI permission denied": "CommandDenied",
    f'{TASK}exec: "app": cannot run executable found relative to current directory: unknown': "CommandNotFound",
    f"{TASK}{INIT}unable to set memory limit to 6291456 (current usage: 8388608, peak usage: 8388608): unknown": (
        "LimitsInvalid"
    ),
    "endpoint with name web already exists in network demo_default": "EngineConflict",
}

#: Real texts of pulls and builds, of the classic image store and of containerd's.
IMAGES = {
    "invalid tag format": "InvalidReference",
    "toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit": (
        "RegistryLimited"
    ),
    "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/x/manifests/"
    "sha256:58: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit. You may "
    "increase the limit by authenticating and upgrading": "RegistryLimited",
    "toomanyrequests: Rate exceeded": "RegistryLimited",
    "error from registry: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-"
    "limit": "RegistryLimited",
    'Get "https://r.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority': (
        "RegistryUntrusted"
    ),
    'Get "https://r.example/v2/": x509: certificate has expired or is not yet valid': "RegistryUntrusted",
    "failed to do request: Head https://r/v2/x/manifests/1: http: server gave HTTP response to HTTPS client": (
        "RegistryUntrusted"
    ),
    "pull access denied for x, repository does not exist or may require authorization: server message: "
    "insufficient_scope: authorization failed": "RegistryDenied",
    "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://auth.example/token: "
    "401 Unauthorized": "RegistryDenied",
    "error from registry: denied": "RegistryDenied",
    "error from registry: unauthorized": "RegistryDenied",
    'failed to resolve reference "docker.io/library/snj:latest": pull access denied, repository does not exist or may '
    "require authorization: server message: insufficient_scope: authorization failed": "RegistryDenied",
    "denied: requested access to the resource is denied": "RegistryDenied",
    "repository demo/model not found: does not exist or no pull access": "RegistryDenied",
    "error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"<html>\"": (
        "RegistryUnreachable"
    ),
    "no supported platform found in manifest list": "ImageUnusable",
    "unsupported manifest media type and no default available: application/vnd.oci.artifact": "ImageUnusable",
    'failed to resolve reference "h/x:1": unexpected status from HEAD request to https://h/v2/x/manifests/1: 403 '
    "Forbidden": "RegistryDenied",
    'failed to resolve reference "docker.io/library/nope:1": docker.io/library/nope:1: not found': "ImageNotFound",
    "no matching manifest for linux/arm64/v8 in the manifest list entries": "ImageUnusable",
    "no match for platform in manifest: not found": "ImageUnusable",
    'not implemented: media type "application/vnd.docker.distribution.manifest.v1+prettyjws" is no longer supported since '
    'containerd v2.1, please rebuild the image as "application/vnd.docker.distribution.manifest.v2+json" or '
    '"application/vnd.oci.image.manifest.v1+json"': "ImageUnusable",
    'image operating system "windows" cannot be used on this platform': "ImageUnusable",
    "received unexpected HTTP status: 503 Service Unavailable": "RegistryUnreachable",
    "received unexpected HTTP status: 500 Internal Server Error": "RegistryUnreachable",
    "unexpected EOF": "RegistryUnreachable",
    "dial tcp: lookup r.example: Temporary failure in name resolution": "RegistryUnreachable",
    "dial tcp 10.0.0.9:443: connect: no route to host": "RegistryUnreachable",
    "The command '/bin/sh -c echo unauthorized: certificate' returned a non-zero code: 1": "BuildFailed",
    'process "/bin/sh -c curl https://x509.invalid" did not complete successfully: exit code: 6': "BuildFailed",
}
