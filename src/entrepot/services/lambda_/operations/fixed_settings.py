"""Settings that are the same for every function here, for tools that read all there is of a function (Terraform)."""

from entrepot.database import Reader
from entrepot.operations import Call, Operation, ReadOperation, Request, Response
from entrepot.services.lambda_.operations.edge import Edge


class FixedSettings:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on = self._edge.on_function
        return [
            ReadOperation(name, on(name), run)
            for name, run in (
                ("GetFunctionCodeSigningConfig", self.get_function_code_signing_config),
                ("GetFunctionRecursionConfig", self.get_function_recursion_config),
                ("GetRuntimeManagementConfig", self.get_runtime_management_config),
            )
        ]

    def get_function_code_signing_config(self, reader: Reader, request: Request, call: Call) -> Response:
        """Say that code is not signed: no configuration is named."""
        name = self._edge.known(reader, self._edge.reference(request)).name
        return {"CodeSigningConfigArn": "", "FunctionName": name}

    def get_function_recursion_config(self, reader: Reader, request: Request, call: Call) -> Response:
        """Say that a function which invokes itself through a queue or topic is left alone: loops are not looked for."""
        self._edge.latest(reader, self._edge.unqualified(request))
        return {"RecursiveLoop": "Allow"}

    def get_runtime_management_config(self, reader: Reader, request: Request, call: Call) -> Response:
        """Say that the runtime is updated with the server."""
        named = self._edge.known(reader, self._edge.reference(request))
        return {"UpdateRuntimeOn": "Auto", "FunctionArn": self._edge.arn(named)}
