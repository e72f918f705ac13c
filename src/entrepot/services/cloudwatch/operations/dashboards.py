"""PutDashboard, GetDashboard, ListDashboards, DeleteDashboards."""

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.cloudwatch import dashboards
from entrepot.services.cloudwatch.dashboards import Dashboard
from entrepot.services.cloudwatch.errors import DashboardNotFoundError
from entrepot.services.cloudwatch.service import CloudWatch

PAGE = 1_000
"""Dashboards in a page of ListDashboards. As on AWS."""


def operations(cloudwatch: CloudWatch) -> list[Operation]:
    """Return the operations on dashboards."""
    edge = _Edge(cloudwatch)
    return [
        WriteOperation("PutDashboard", edge.on_one("PutDashboard"), edge.put_dashboard),
        ReadOperation("GetDashboard", edge.on_one("GetDashboard"), edge.get_dashboard),
        ReadOperation("ListDashboards", edge.on_one("ListDashboards"), edge.list_dashboards),
        WriteOperation("DeleteDashboards", edge.on_many("DeleteDashboards"), edge.delete_dashboards),
    ]


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, cloudwatch: CloudWatch) -> None:
        self._account = cloudwatch.account

    def _arn(self, name: str) -> str:
        return f"arn:{self._account.partition}:cloudwatch::{self._account.account_id}:dashboard/{name}"

    def on_one(self, action: str) -> Permissions:
        return lambda request: (Permission(f"cloudwatch:{action}", self._arn(request.get("DashboardName", "*"))),)

    def on_many(self, action: str) -> Permissions:
        return lambda request: [
            Permission(f"cloudwatch:{action}", self._arn(name)) for name in request.get("DashboardNames") or ("*",)
        ]

    def put_dashboard(self, tx: Transaction, request: Request, call: Call) -> Response:
        name, body = request["DashboardName"], request["DashboardBody"]
        warnings = dashboards.check(name, body)
        dashboards.put(tx, Dashboard(name, body, clock.now_ms()))
        return {"DashboardValidationMessages": [{"DataPath": path, "Message": text} for path, text in warnings]}

    def get_dashboard(self, reader: Reader, request: Request, call: Call) -> Response:
        found = dashboards.find(reader, request["DashboardName"])
        if found is None:
            raise DashboardNotFoundError(f"Dashboard {request['DashboardName']} does not exist")
        return {"DashboardArn": self._arn(found.name), "DashboardBody": found.body, "DashboardName": found.name}

    def list_dashboards(self, reader: Reader, request: Request, call: Call) -> Response:
        prefix = request.get("DashboardNamePrefix", "")
        found = dashboards.page(reader, prefix, request.get("NextToken", ""), PAGE + 1)
        response: Response = {
            "DashboardEntries": [
                {
                    "DashboardName": one.name,
                    "DashboardArn": self._arn(one.name),
                    "LastModified": clock.from_ms(one.changed_at_ms),
                    "Size": len(one.body.encode()),
                }
                for one in found[:PAGE]
            ]
        }
        if len(found) > PAGE:
            response["NextToken"] = found[PAGE - 1].name
        return response

    def delete_dashboards(self, tx: Transaction, request: Request, call: Call) -> Response:
        names = request["DashboardNames"]
        missing = [name for name in names if dashboards.find(tx, name) is None]
        if missing:
            raise DashboardNotFoundError(f"Dashboard {missing[0]} does not exist; none was deleted.")
        for name in names:
            dashboards.delete(tx, name)
        return {}
