"""What receivers may ask without a signature, as on AWS: the certificate, and the links in notifications and mails."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

from entrepot import ids
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.services.sns import subscriptions
from entrepot.services.sns.errors import AuthorizationError, NotFound
from entrepot.services.sns.service import SNS
from entrepot.services.sns.signing import PATH_PREFIX
from entrepot.services.sns.subscriptions import Subscription

_NAMESPACE = "http://sns.amazonaws.com/doc/2010-03-31/"


def is_public(method: str, path: str, query: Mapping[str, str]) -> bool:
    """Tell whether `answer` answers this request."""
    if method not in ("GET", "HEAD"):
        return False
    return path.startswith(PATH_PREFIX) or (
        path == "/" and query.get("Action") in ("ConfirmSubscription", "Unsubscribe")
    )


async def answer(sns: SNS, path: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
    """Return (status, content type, body) for a request that is public."""
    if path.startswith(PATH_PREFIX):
        if path != sns.signer.certificate_path():
            return 404, "text/plain", b"There is no such certificate.\n"
        return 200, "application/x-pem-file", sns.signer.certificate_pem()
    action = query["Action"]
    request_id = ids.random_uuid()
    try:
        if action == "ConfirmSubscription":
            await sns.database.read(lambda reader: _check_token(sns, reader, query))  # A guess must not cost a write.
            arn = await sns.database.write(lambda tx: _confirm(sns, tx, query))
            result = f"<ConfirmSubscriptionResult><SubscriptionArn>{escape(arn)}</SubscriptionArn></ConfirmSubscriptionResult>"
        else:
            if await sns.database.read(lambda reader: _find(sns, reader, query)) is not None:
                await sns.database.write(lambda tx: _unsubscribe(sns, tx, query))
            result = ""
    except AwsError as error:
        body = (
            f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>'
            f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return error.status, "text/xml", body.encode("utf-8", "replace")
    body = (
        f'<{action}Response xmlns="{_NAMESPACE}">{result}<ResponseMetadata><RequestId>{request_id}</RequestId>'
        f"</ResponseMetadata></{action}Response>"
    )
    return 200, "text/xml", body.encode()


def _check_token(sns: SNS, reader: Reader, query: Mapping[str, str]) -> None:
    subscriptions.check_token(reader, sns.topic(reader, query.get("TopicArn", "")), query.get("Token", ""))


def _confirm(sns: SNS, tx: Transaction, query: Mapping[str, str]) -> str:
    topic = sns.topic(tx, query["TopicArn"])
    subscription = subscriptions.confirm(tx, topic, query["Token"], authenticated=False, on_unsubscribe=False)
    return subscription.arn(sns.account)


def _find(sns: SNS, reader: Reader, query: Mapping[str, str]) -> Subscription | None:
    """Return the subscription to end; None when it is ended already: the answer to a second click."""
    try:
        subscription = subscriptions.get(reader, sns.account, query.get("SubscriptionArn", ""))
    except NotFound:
        return None
    if subscription.authenticate_on_unsubscribe:
        raise AuthorizationError("This subscription can be ended by an authenticated request only.")
    return subscription


def _unsubscribe(sns: SNS, tx: Transaction, query: Mapping[str, str]) -> None:
    subscription = _find(sns, tx, query)
    if subscription is not None:
        sns.unsubscribe(tx, subscription)
