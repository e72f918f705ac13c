"""The wire and nothing else: SigV4, routing, parsing and serialising driven by botocore's own service models.

One `Endpoint` serves every registered operation on one port. What an operation means is not known here: a request
becomes a dict in the shape of botocore's model, passes the one gate (`entrepot.operations`), and what comes back is
written in the service's protocol.
"""

from entrepot.aws.endpoint import Endpoint, OnRequest, PublicAnswer, RequestRecord

__all__ = ["Endpoint", "OnRequest", "PublicAnswer", "RequestRecord"]
