"""A file's story: its record, what the ledger holds beside it, and the histories of its executions."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrepot.database import Reader
from entrepot.services.files.listing import find_file
from entrepot.services.files.record import FileRecord
from entrepot.services.files.service import Files
from entrepot.services.files.timeline import Facts, facts_of


@dataclass(frozen=True, slots=True)
class Story:
    """`histories` is by execution ARN; what other rooms no longer have is left out."""

    file: FileRecord
    facts: Facts
    histories: Mapping[str, Sequence[Mapping[str, Any]]]


async def story_of(files: Files, name: str) -> Story:
    """Return the story of the file with this id, beginning of an id, or key; raise as `find_file` does."""

    def read(reader: Reader) -> tuple[FileRecord, Facts]:
        file = find_file(reader, name)
        session = None
        if files.find_session is not None and file.session_id is not None:
            session = files.find_session(reader, file.session_id)
        return file, facts_of(reader, file, session)

    file, facts = await files.database.read(read)
    histories: dict[str, Any] = {}
    if files.execution_history is not None:
        answers = await asyncio.gather(*(files.execution_history(arn) for arn in facts.execution_arns))
        histories = dict(zip(facts.execution_arns, answers, strict=True))
    return Story(file, facts, histories)
