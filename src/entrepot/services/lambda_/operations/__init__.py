"""The edge of Lambda: botocore's service `lambda`, PascalCase in and out. One file per subject.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

from entrepot.operations import Operation
from entrepot.services.lambda_.operations.aliases import Aliases
from entrepot.services.lambda_.operations.concurrency import Concurrency
from entrepot.services.lambda_.operations.edge import Edge
from entrepot.services.lambda_.operations.event_invoke_configs import EventInvokeConfigs
from entrepot.services.lambda_.operations.event_source_mappings import EventSourceMappings
from entrepot.services.lambda_.operations.fixed_settings import FixedSettings
from entrepot.services.lambda_.operations.functions import Functions
from entrepot.services.lambda_.operations.invoke import Invoke
from entrepot.services.lambda_.operations.layer_permissions import LayerPermissions
from entrepot.services.lambda_.operations.layers import Layers
from entrepot.services.lambda_.operations.policies import Policies
from entrepot.services.lambda_.operations.tags import Tags
from entrepot.services.lambda_.operations.versions import Versions
from entrepot.services.lambda_.service import Lambda

_SUBJECTS = (
    Functions,
    Versions,
    Aliases,
    Layers,
    LayerPermissions,
    Invoke,
    EventInvokeConfigs,
    Concurrency,
    EventSourceMappings,
    Policies,
    Tags,
    FixedSettings,
)


def operations(lambda_: Lambda) -> list[Operation]:
    """Return the operations of botocore's service `lambda`."""
    edge = Edge(lambda_)
    return [operation for subject in _SUBJECTS for operation in subject(edge).operations()]


__all__ = ["operations"]
