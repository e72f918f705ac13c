"""What differs between runtimes: how a process becomes AWS's runtime client, and where it looks for layers.

AWS unpacks all layers into `/opt`, one over the other. Here the merged content lies in a folder of its own, which is
`/opt` to the function where mount namespaces are permitted; the variables that lead a runtime to `/opt` on AWS lead it to
where it sees them.

Source: https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrepot.services.lambda_.errors import LambdaServiceError

NODE_CLIENT = "aws-lambda-ric"
"""The npm package of AWS's runtime client for Node.js."""

_NODE_PLACES = "/usr/local/bin:/usr/bin:/bin"
_STAND_IN = Path(__file__).with_name("rapid_client.cjs")

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


@dataclass(frozen=True, slots=True)
class NodeStart:
    """What to execute for a function on Node.js, and which paths it must be able to read."""

    command: Sequence[str]
    read_only: Sequence[str]


def node_start(runtime: str, handler: str, task: Path, seen_as: str, node_modules: Path | None) -> NodeStart:
    """Return how a function on Node.js begins. LambdaServiceError when Node.js or AWS's client is not installed.

    The client is taken from the function's own node_modules, else from the folder `node_modules` of the settings.
    `task` is where the code lies, `seen_as` where the function sees it.
    """
    node = shutil.which("node", path=_NODE_PLACES)
    if node is None:
        raise LambdaServiceError(f"The runtime {runtime} needs Node.js, and there is no node in {_NODE_PLACES}.")
    own = task / "node_modules" / NODE_CLIENT
    if own.is_dir():
        client, place, read_only = own, f"{seen_as}/node_modules/{NODE_CLIENT}", [str(_STAND_IN)]
    elif node_modules is not None and (node_modules / NODE_CLIENT).is_dir():
        client, place = node_modules / NODE_CLIENT, str(node_modules / NODE_CLIENT)
        read_only = [str(_STAND_IN), str(node_modules)]
    else:
        raise LambdaServiceError(
            f"The runtime {runtime} needs AWS's runtime client for Node.js, which is not installed. Run "
            f"`npm install --ignore-scripts {NODE_CLIENT}` in a folder and name its node_modules in stack.toml: "
            'node_modules = "…" in [workers]; or install it into the function\'s own node_modules.'
        )
    command = [node, "--require", str(_STAND_IN), f"{place}/{_entry(client)}", handler]
    return NodeStart(command, read_only)


def _entry(client: Path) -> str:
    """Return the program of the client's package, as its package.json names it."""
    try:
        program = json.loads((client / "package.json").read_text("utf-8"))["bin"]
        return str(program if isinstance(program, str) else program[NODE_CLIENT]).removeprefix("./")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LambdaServiceError(f"{client}: its package.json names no program: {error!r}") from error
