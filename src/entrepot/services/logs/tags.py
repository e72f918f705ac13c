"""Tags of log groups."""

from collections.abc import Mapping, Sequence

from entrepot.services.logs.errors import InvalidParameterError, TooManyTagsError
from entrepot.services.logs.session import Session, find_group

TAGS_LIMIT = 50
"""Tags of a group. AWS's limit."""

KEY_LIMIT_CHARS = 128
VALUE_LIMIT_CHARS = 256


def write_tags(session: Session, group: str, tags: Mapping[str, str], removed: Sequence[str] = ()) -> None:
    """Put tags on a group and take others away; ResourceNotFoundError, TooManyTagsError, InvalidParameterError."""
    group_id = find_group(session, group)
    for key, value in tags.items():
        if not 1 <= len(key) <= KEY_LIMIT_CHARS or len(value) > VALUE_LIMIT_CHARS or key.startswith("aws:"):
            raise InvalidParameterError(
                f"The tag {key[:200]!r} is not valid: keys have 1 to {KEY_LIMIT_CHARS} characters and do not begin with aws:, "
                f"values have up to {VALUE_LIMIT_CHARS}."
            )
        session.execute(
            "INSERT OR REPLACE INTO group_tag (group_id, key, value) VALUES (?, ?, ?)", (group_id, key, value)
        )
    for key in removed:
        session.execute("DELETE FROM group_tag WHERE group_id = ? AND key = ?", (group_id, key))
    row = session.one("SELECT count(*) FROM group_tag WHERE group_id = ?", (group_id,))
    if row is not None and row[0] > TAGS_LIMIT:
        raise TooManyTagsError(f"A log group can have {TAGS_LIMIT} tags.")
