"""Reads what is special to Map: the item processor, and the fields of the distributed mode, which is refused for now.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map.html.
"""

from collections.abc import Callable

from .definition import Workflow
from .fields import Fields

_DISTRIBUTED_ONLY = (
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "Label",
    "ToleratedFailureCount",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentage",
    "ToleratedFailurePercentagePath",
)
MAX_LABEL_CHARACTERS = 40
"""AWS's limit for Label."""


def processor_of(fields: Fields, read_workflow: Callable[[Fields], Workflow]) -> Workflow:
    """Read ItemProcessor, or its older name Iterator."""
    fields.exclusive("ItemProcessor", "Iterator")
    name = "Iterator" if fields.has("Iterator") else "ItemProcessor"
    if not fields.require(name) or not isinstance(fields.source[name], dict):
        fields.mapping(name)
        return Workflow("", {})
    processor = Fields(fields.source[name], fields.at(name), fields.findings)
    _parse_config(processor)
    workflow = read_workflow(processor)
    processor.finish()
    return workflow


def _parse_config(processor: Fields) -> None:
    if not processor.has("ProcessorConfig"):
        return
    config = Fields(processor.mapping("ProcessorConfig"), processor.at("ProcessorConfig"), processor.findings)
    distributed = config.one_of("Mode", ("INLINE", "DISTRIBUTED")) == "DISTRIBUTED"
    if distributed:
        config.require("ExecutionType")
        config.findings.refuse("The distributed Map (Mode DISTRIBUTED) is not supported yet", config.at("Mode"))
    if config.has("ExecutionType"):
        config.one_of("ExecutionType", ("STANDARD", "EXPRESS"))
    config.finish()


def parse_distributed_fields(fields: Fields) -> None:
    """Check the fields that only the distributed Map has, and note that it is not served."""
    fields.exclusive("ToleratedFailureCount", "ToleratedFailureCountPath")
    fields.exclusive("ToleratedFailurePercentage", "ToleratedFailurePercentagePath")
    fields.integer("ToleratedFailureCount", lowest=0)
    fields.reference_path("ToleratedFailureCountPath")
    if fields.number("ToleratedFailurePercentage", 0.0, 0.0) > 100:
        fields.problem("ToleratedFailurePercentage", "Value must be between 0 and 100")
    fields.reference_path("ToleratedFailurePercentagePath")
    if len(fields.string("Label")) > MAX_LABEL_CHARACTERS:
        fields.problem("Label", f"A Label may have {MAX_LABEL_CHARACTERS} characters at most")
    _parse_reader(fields)
    _parse_batcher(fields)
    _parse_writer(fields)
    for name in _DISTRIBUTED_ONLY:
        if fields.has(name):
            fields.findings.refuse(f"The distributed Map ({name}) is not supported yet", fields.at(name))


def refuse_distributed(fields: Fields) -> None:
    """Note that the fields of the distributed Map are not served, in a state with JSONata."""
    if len(fields.string("Label")) > MAX_LABEL_CHARACTERS:
        fields.problem("Label", f"A Label may have {MAX_LABEL_CHARACTERS} characters at most")
    for name in ("ItemReader", "ItemBatcher", "ResultWriter", "Label"):
        if fields.has(name):
            fields.findings.refuse(f"The distributed Map ({name}) is not supported yet", fields.at(name))


def _parse_reader(fields: Fields) -> None:
    if not fields.has("ItemReader"):
        return
    reader = Fields(fields.mapping("ItemReader"), fields.at("ItemReader"), fields.findings)
    reader.require("Resource")
    reader.string("Resource")
    reader.object_template("Parameters")
    if reader.has("ReaderConfig"):
        config = Fields(reader.mapping("ReaderConfig"), reader.at("ReaderConfig"), reader.findings)
        config.exclusive("MaxItems", "MaxItemsPath")
        config.integer("MaxItems", lowest=0)
        config.reference_path("MaxItemsPath")
        config.known.update(("InputType", "CSVHeaderLocation", "CSVHeaders", "CSVDelimiter", "Transformation"))
        config.known.update(("ManifestType", "ItemsPointer"))
        config.finish()
    reader.finish()


def _parse_batcher(fields: Fields) -> None:
    if not fields.has("ItemBatcher"):
        return
    batcher = Fields(fields.mapping("ItemBatcher"), fields.at("ItemBatcher"), fields.findings)
    names = ("MaxItemsPerBatch", "MaxInputBytesPerBatch")
    for name in names:
        batcher.exclusive(name, f"{name}Path")
        batcher.integer(name, lowest=1)
        batcher.reference_path(f"{name}Path")
    if not any(batcher.has(name) or batcher.has(f"{name}Path") for name in names):
        batcher.findings.error(f"One of these fields is required: [{', '.join(names)}]", batcher.location)
    batcher.object_template("BatchInput")
    batcher.finish()


def _parse_writer(fields: Fields) -> None:
    if not fields.has("ResultWriter"):
        return
    writer = Fields(fields.mapping("ResultWriter"), fields.at("ResultWriter"), fields.findings)
    writer.string("Resource")
    writer.object_template("Parameters")
    writer.mapping("WriterConfig")
    writer.finish()
