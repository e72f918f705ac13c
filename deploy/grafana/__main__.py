"""Write the dashboards and alert rules into the folder of this file."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import alerts, dashboards

HERE = Path(__file__).parent


def generated() -> dict[str, str]:
    """Return the text of each generated file by its path below this folder."""
    return {
        "dashboards/entrepot-cloudwatch.json": _text(_numbered(dashboards.cloudwatch())),
        "dashboards/entrepot-prometheus.json": _text(_numbered(dashboards.prometheus())),
        "provisioning/alerting/entrepot.json": _text(alerts.provisioned()),
    }


def _numbered(board: Dashboard) -> dict[str, Any]:
    """Return a dashboard whose panels have numbers, so that links to a panel stay good."""
    made: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for number, panel in enumerate(made["panels"], 1):
        panel["id"] = number
    return made


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all files."""
    for name, text in generated().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"{path.relative_to(HERE.parent.parent)}: {len(text):,} characters")


if __name__ == "__main__":
    main()
