"""A child process that may touch only what it is given: what Linux offers without a container engine.

One *launcher* process, started once, imports what most functions import and forks on request. Each fork is a *guard*: it enters
namespaces, forks the process proper, which ties itself down (limits, Landlock, another user), reaps what that one leaves
behind, and kills the whole family at its end or when the server is gone.

The server imports `kernel`, `landlock` and `cgroups`; everything else runs in the launcher's processes only. Nothing here imports
another part of the server: its code, its memory and its secrets do not exist in a function's process.

Source: https://docs.kernel.org/userspace-api/landlock.html, namespaces(7), cgroups(7), credentials(7)
"""
