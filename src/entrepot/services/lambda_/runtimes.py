"""What differs between runtimes: where they look for a function's layers.

AWS unpacks all layers into `/opt`, one over the other. Here the merged content lies in a folder of its own, which is `/opt` to the
function where mount namespaces are permitted; the variables that lead a runtime to `/opt` on AWS lead it to where it sees them.

Source: https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
"""

from collections.abc import Mapping
from pathlib import Path

SEARCH_PATHS: Mapping[str, tuple[str, ...]] = {
    "PATH": ("bin",),
    "LD_LIBRARY_PATH": ("lib",),
    "PYTHONPATH": ("python/lib/{runtime}/site-packages", "python"),
    "NODE_PATH": ("nodejs/node{major}/node_modules", "nodejs/node_modules"),
}
"""The variables that name folders of layers, with the folders as AWS documents them."""


def layer_variables(runtime: str, layers: Path, variables: Mapping[str, str], seen_as: str) -> dict[str, str]:
    """Return the search paths of `variables` with the folders that the layers have; the function's own come first.

    `layers` is where they lie, `seen_as` where the function sees them.
    """
    major = runtime.removeprefix("nodejs").partition(".")[0]
    found = {}
    for name, templates in SEARCH_PATHS.items():
        folders = [template.format(runtime=runtime, major=major) for template in templates]
        there = [f"{seen_as}/{folder}" for folder in folders if (layers / folder).is_dir()]
        if there:
            found[name] = ":".join([*filter(None, [variables.get(name)]), *there])
    return found
