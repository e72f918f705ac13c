"""Topics: whom alarms and events tell. A topic with its subscriptions; a new subscription."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.pages.forms import ask, done, field
from entrepot.errors import AwsError

PROTOCOLS = ("email", "email-json", "https", "http", "lambda", "sqs")
"""What the form offers."""

PENDING = "PendingConfirmation"


async def topics(request: Request) -> Response:
    """The list."""
    answer = await ask(request)("sns", "ListTopics", NextToken=request.query_params.get("next") or None)
    next_token = answer.get("NextToken")
    return render.page(
        request,
        "topics.html",
        section="alarms",
        topics=[topic["TopicArn"] for topic in answer["Topics"]],
        next_page=render.with_query(request, next=next_token) if next_token else "",
    )


async def topic(request: Request) -> Response:
    """The page of a topic."""
    return await _page(request, request.path_params["name"], {}, "")


async def _page(request: Request, name: str, given: dict[str, str], problem: str, status_code: int = 200) -> Response:
    asking = ask(request)
    arn = await _arn(request, name)
    if arn is None:
        return render.page(
            request, "error.html", 404, section="alarms", title="There is no such topic", message=f"“{name}”"
        )
    attributes = (await asking("sns", "GetTopicAttributes", TopicArn=arn))["Attributes"]
    answer = await asking(
        "sns", "ListSubscriptionsByTopic", TopicArn=arn, NextToken=request.query_params.get("next") or None
    )
    next_token = answer.get("NextToken")
    return render.page(
        request,
        "topic.html",
        status_code,
        section="alarms",
        name=name,
        arn=arn,
        attributes=attributes,
        subscriptions=answer["Subscriptions"],
        pending=PENDING,
        protocols=PROTOCOLS,
        given=given,
        problem=problem,
        next_page=render.with_query(request, next=next_token) if next_token else "",
    )


async def _arn(request: Request, name: str) -> str | None:
    """Return the ARN of a topic; None when there is none of that name."""
    token: str | None = None
    while True:
        answer = await ask(request)("sns", "ListTopics", NextToken=token)
        for one in answer["Topics"]:
            if one["TopicArn"].rsplit(":", 1)[-1] == name:
                return str(one["TopicArn"])
        token = answer.get("NextToken")
        if not token:
            return None


async def create(request: Request) -> Response:
    """Create a topic."""
    name = field(request, "name")
    request.app.state.console.note(request, "CreateTopic", name)
    try:
        await ask(request)("sns", "CreateTopic", Name=name)
    except AwsError as error:
        return done("/topics", f"Not created: {error.message}")
    return done(render.path("topics", name), "The topic is created.")


async def subscribe(request: Request) -> Response:
    """Add a subscription."""
    name = field(request, "name")
    given = {key: field(request, key) for key in ("protocol", "endpoint", "filter_policy")}
    arn = await _arn(request, name)
    request.app.state.console.note(request, "Subscribe", f"{name} {given['protocol']} {given['endpoint']}")
    attributes: dict[str, str] = {}
    if given["filter_policy"]:
        try:
            json.loads(given["filter_policy"])
        except (ValueError, RecursionError):
            return await _page(request, name, given, "The filter policy is not JSON.", 400)
        attributes["FilterPolicy"] = given["filter_policy"]
    try:
        await ask(request)(
            "sns",
            "Subscribe",
            TopicArn=arn or name,
            Protocol=given["protocol"],
            Endpoint=given["endpoint"],
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )
    except AwsError as error:
        return await _page(request, name, given, error.message, error.status)
    waits = given["protocol"] in ("email", "email-json", "http", "https")
    return done(
        render.path("topics", name),
        "Subscribed." + (" Nothing is sent there until the link in the message that asks is opened." if waits else ""),
    )


async def unsubscribe(request: Request) -> Response:
    """Take a subscription away."""
    name, arn = field(request, "name"), field(request, "arn")
    request.app.state.console.note(request, "Unsubscribe", arn)
    await ask(request)("sns", "Unsubscribe", SubscriptionArn=arn)
    return done(render.path("topics", name), "The subscription is gone.")


ROUTES = [
    Route("/topics", topics, name="topics"),
    Route("/topics/create", create, methods=["POST"], name="topic_create"),
    Route("/topics/subscribe", subscribe, methods=["POST"], name="topic_subscribe"),
    Route("/topics/unsubscribe", unsubscribe, methods=["POST"], name="topic_unsubscribe"),
    Route("/topics/{name}", topic, name="topic"),
]
