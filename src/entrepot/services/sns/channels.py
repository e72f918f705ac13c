"""The ways out of the ledger: a post to a URL, a mail, a function. Each delivers once or raises NotDelivered."""

import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, TypeAlias

import aiosmtplib

from entrepot import clock
from entrepot.outbound import DeniedError, InvalidRequestError, OutboundError, Request, Response, Send
from entrepot.services.sns.envelopes import to_text

HTTP_TIMEOUT_S = 15.0
"""How long an endpoint may take to answer (AWS: 15 seconds)."""

SMTP_TIMEOUT_S = 30.0
"""How long each step of a mail's delivery may take."""

ANSWER_LIMIT_BYTES = 4_096
"""What is read of an endpoint's answer; only its status matters."""

CHAT_TEXT_LIMIT = 30_000
"""Characters of a chat message (Slack cuts at 40,000)."""

USER_AGENT = "Amazon Simple Notification Service Agent"
"""What receivers written for AWS look for."""


class NotDelivered(Exception):
    """A delivery failed. `is_final`: trying again does not help. The text says what happened, for the log."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class MailServer:
    """The SMTP server that takes mail: `[smtp]` of stack.toml. `tls` is TLS from the first byte (port 465)."""

    host: str
    port: int
    from_address: str
    starttls: bool = True
    tls: bool = False
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


SendMail: TypeAlias = Callable[[EmailMessage], Awaitable[None]]


async def post(send: Send, url: str, headers: Mapping[str, str], body: bytes) -> None:
    """Post to an endpoint; any 2xx is a delivery. A 4xx other than 429 is final."""
    request = Request(
        "POST", url, tuple({"User-Agent": USER_AGENT, **headers}.items()), body, HTTP_TIMEOUT_S, ANSWER_LIMIT_BYTES
    )
    try:
        response: Response = await send(request)
    except (DeniedError, InvalidRequestError) as error:
        raise NotDelivered(str(error), is_final=True) from error
    except OutboundError as error:
        raise NotDelivered(str(error), is_final=False) from error
    if not 200 <= response.status < 300:
        reason = f"The endpoint answered {response.status} {response.reason[:100]}."
        raise NotDelivered(reason, is_final=response.status < 500 and response.status != 429)


def chat_body(subject: str | None, text: str) -> bytes:
    """Return what Slack-like webhooks take: `{"text": …}`."""
    shown = f"*{subject}*\n{text}" if subject else text
    if len(shown) > CHAT_TEXT_LIMIT:
        shown = f"{shown[:CHAT_TEXT_LIMIT]}…"
    return json.dumps({"text": shown}, ensure_ascii=False).encode()


async def send_mail(server: MailServer, mail: EmailMessage) -> None:
    """Hand a mail to the SMTP server; a refusal with a 5xx is final."""
    password = None
    if server.password_file is not None:
        try:
            password = server.password_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotDelivered(f"The password of [smtp] cannot be read: {error}.", is_final=False) from error
    context = None
    if server.tls or server.starttls:
        try:
            context = ssl.create_default_context()
            if server.ca_file is not None:
                context.load_verify_locations(cafile=server.ca_file)
        except OSError as error:
            raise NotDelivered(f"The authorities of [smtp] cannot be read: {error}.", is_final=False) from error
    try:
        await aiosmtplib.send(
            mail,
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=password,
            start_tls=server.starttls and not server.tls,
            use_tls=server.tls,
            tls_context=context,
            timeout=SMTP_TIMEOUT_S,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        is_final = all(refused.code >= 500 for refused in error.recipients)
        raise NotDelivered(f"{server.host} refused the recipient: {error}.", is_final=is_final) from error
    except aiosmtplib.SMTPResponseException as error:
        is_final = error.code >= 500 and not isinstance(error, aiosmtplib.SMTPAuthenticationError)
        raise NotDelivered(f"{server.host} answered {error.code} {error.message[:200]}.", is_final=is_final) from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise NotDelivered(f"{server.host} port {server.port} took no mail: {error}.", is_final=False) from error


def mail_of(from_address: str, display_name: str, to_address: str, subject: str, text: str) -> EmailMessage:
    """Return a mail in plain text."""
    mail = EmailMessage(policy=SMTP_POLICY)
    name = display_name or "AWS Notifications"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    mail["From"] = f'"{quoted}" <{from_address}>'
    mail["To"] = to_address
    mail["Subject"] = subject
    mail["Date"] = formatdate(clock.now_ms() / 1000)
    mail["Message-ID"] = make_msgid(domain=from_address.rpartition("@")[2] or "localhost")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    return mail


def notification_mail(
    from_address: str, display_name: str, to_address: str, document: Mapping[str, Any], *, as_json: bool
) -> EmailMessage:
    """Return the mail of a notification: its text with the link that ends the subscription, or its whole document."""
    subject = document.get("Subject") or "AWS Notification Message"
    if as_json:
        return mail_of(from_address, display_name, to_address, subject, to_text(document))
    text = (
        f"{document['Message']}\n\n--\nIf you wish to stop receiving notifications from this topic, please click or visit "
        f"the link below to unsubscribe:\n{document['UnsubscribeURL']}\n"
    )
    return mail_of(from_address, display_name, to_address, subject, text)


def confirmation_mail(
    from_address: str, display_name: str, to_address: str, document: Mapping[str, Any], *, as_json: bool
) -> EmailMessage:
    """Return the mail that asks whether somebody wants a topic's messages."""
    subject = "AWS Notification - Subscription Confirmation"
    if as_json:
        return mail_of(from_address, display_name, to_address, subject, to_text(document))
    text = (
        f"You have chosen to subscribe to the topic:\n{document['TopicArn']}\n\nTo confirm this subscription, click or visit "
        f"the link below (If this was in error no action is necessary):\n{document['SubscribeURL']}\n"
    )
    return mail_of(from_address, display_name, to_address, subject, text)
