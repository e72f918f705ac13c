"""Reads what is special to Map: the item processor, and the fields of the distributed mode.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map.html,
https://docs.aws.amazon.com/step-functions/latest/dg/input-output-fields-dist-map.html.
"""

from collections.abc import Callable
from typing import Any

from entrepot import ids

from .definition import QueryLanguage, Workflow
from .distributed import DELIMITERS, Amount, Distribution, ItemBatcher, ItemReader, ResultWriter
from .evaluation import Json
from .fields import Fields
from .json_text import dumps
from .parse_jsonata import JsonataFields, wrong_language
from .template import Template

MAX_LABEL_CHARACTERS = 40
"""AWS's limit for Label."""

MAX_CSV_HEADERS = 10_000
"""CSVHeaders in a definition; AWS names no number but the 10 KiB of all of them."""

_LABEL_FORBIDDEN = frozenset(' ?*<>{}[]:;,\\|^~$#%&`"') | {chr(code) for code in (*range(32), *range(127, 160))}
_GET_OBJECT, _LIST_OBJECTS = "s3:getObject", "s3:listObjectsV2"


def processor_of(fields: Fields, read_workflow: Callable[[Fields, bool], Workflow], express: bool) -> Workflow:
    """Read ItemProcessor, or its older name Iterator. `express`: what it is part of is of type EXPRESS."""
    fields.exclusive("ItemProcessor", "Iterator")
    name = _processor_name(fields)
    if not fields.require(name) or not isinstance(fields.source[name], dict):
        fields.mapping(name)
        return Workflow("", {})
    processor = Fields(fields.source[name], fields.at(name), fields.findings)
    workflow = read_workflow(processor, _parse_config(processor) or express)
    processor.finish()
    return workflow


def _processor_name(fields: Fields) -> str:
    return "Iterator" if fields.has("Iterator") else "ItemProcessor"


def _parse_config(processor: Fields) -> bool:
    """Read ProcessorConfig; say whether the processor runs as executions of type EXPRESS."""
    if not processor.has("ProcessorConfig"):
        return False
    config = Fields(processor.mapping("ProcessorConfig"), processor.at("ProcessorConfig"), processor.findings)
    distributed = config.one_of("Mode", ("INLINE", "DISTRIBUTED")) == "DISTRIBUTED"
    if distributed:
        config.require("ExecutionType")
    express = config.has("ExecutionType") and config.one_of("ExecutionType", ("STANDARD", "EXPRESS")) == "EXPRESS"
    config.finish()
    return distributed and express


def distributed_fields(
    name: str, fields: Fields, language: QueryLanguage, *, express: bool, jsonata: bool
) -> dict[str, Any]:
    """Read what the distributed Map has beyond the inline one, and the tolerated failures, which both may name.

    `language` is the machine's: the child executions inherit it. `express`: the machine's type is EXPRESS. `jsonata`: the
    state's own expressions are JSONata.
    """
    reader = JsonataFields(fields) if jsonata else None
    tolerated = {
        "tolerated_count": _amount(fields, reader, "ToleratedFailureCount"),
        "tolerated_percentage": _percentage(fields, reader),
    }
    label = _label(fields)
    item_reader, batcher, writer = _reader(fields, jsonata), _batcher(fields, jsonata), _writer(fields, jsonata)
    source = fields.source.get(_processor_name(fields))
    config = source.get("ProcessorConfig") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(config, dict) or config.get("Mode") != "DISTRIBUTED":
        return tolerated
    if express:
        fields.findings.error("The DISTRIBUTED mode is not supported for EXPRESS state machines", fields.location)
    definition = {key: value for key, value in source.items() if key != "ProcessorConfig"}
    if language is QueryLanguage.JSONATA:
        definition["QueryLanguage"] = language.value
    text = dumps(definition)
    distribution = Distribution(
        express=config.get("ExecutionType") == "EXPRESS",
        label=label or ids.derived_uuid(name, text),
        definition=text,
        reader=item_reader,
        batcher=batcher,
        writer=writer,
    )
    return {**tolerated, "distribution": distribution}


def _label(fields: Fields) -> str:
    label = fields.string("Label", "-" if not fields.has("Label") else "")
    if not fields.has("Label"):
        return ""
    if not label and isinstance(fields.source["Label"], str):
        fields.problem("Label", "Label cannot be empty")
    if len(label) > MAX_LABEL_CHARACTERS:
        fields.problem("Label", f"Label cannot exceed {MAX_LABEL_CHARACTERS} characters")
    found = next((letter for letter in label if letter in _LABEL_FORBIDDEN), None)
    if found is not None:
        fields.problem("Label", f"Label contains invalid character: {found!r}")
    return label


def _amount(fields: Fields, reader: JsonataFields | None, name: str, lowest: int = 0) -> Amount | None:
    """Read an integer, its Path, or the expression that gives it."""
    if reader is not None:
        value, expression = reader.integer(name, lowest)
        return None if value is None and expression is None else Amount(name, value, None, expression)
    path_name = f"{name}Path"
    fields.exclusive(name, path_name)
    if fields.has(path_name):
        return Amount(name, None, fields.reference_path(path_name))
    value = fields.integer(name, lowest)
    return None if value is None else Amount(name, value)


def _percentage(fields: Fields, reader: JsonataFields | None) -> Amount | None:
    name = "ToleratedFailurePercentage"
    if reader is not None and reader.is_open(name):
        return Amount(name, None, None, reader.expression(name))
    if reader is None:
        fields.exclusive(name, f"{name}Path")
        if fields.has(f"{name}Path"):
            return Amount(name, None, fields.reference_path(f"{name}Path"))
    if not fields.has(name):
        return None
    value = fields.number(name, 0.0, 0.0)
    if value > 100:
        fields.problem(name, "Value must be between 0 and 100")
    return Amount(name, value)


def _inner(fields: Fields, name: str) -> Fields:
    return Fields(fields.mapping(name), fields.at(name), fields.findings)


def _parameters(fields: Fields, prefix: str, jsonata: bool) -> Template | None:
    """Read Parameters, or JSONata's Arguments."""
    wanted, other = ("Arguments", "Parameters") if jsonata else ("Parameters", "Arguments")
    if fields.has(other):
        used, needed = ("JSONata", "JSONPath") if jsonata else ("JSONPath", "JSONata")
        fields.findings.error(wrong_language(other, used, needed), fields.location)
    if not fields.has(wanted):
        return None
    if jsonata:
        return JsonataFields(fields, prefix).template(wanted)
    return fields.object_template(wanted)


def _resource(fields: Fields, allowed: tuple[str, ...]) -> str:
    """Read Resource; return `s3:getObject` and the like."""
    text = fields.string("Resource")
    found = text.rpartition(":::")[2]
    if isinstance(fields.source.get("Resource"), str) and found not in allowed:
        fields.problem(
            "Resource", f"The resource provided {text} is not recognized. The value is not a valid resource ARN"
        )
    return found


def _reader(fields: Fields, jsonata: bool) -> ItemReader | None:
    if not fields.has("ItemReader"):
        return None
    reader = _inner(fields, "ItemReader")
    reader.require("Resource")
    resource = _resource(reader, (_GET_OBJECT, _LIST_OBJECTS))
    parameters = _parameters(reader, "ItemReader/", jsonata)
    config = _inner(reader, "ReaderConfig")
    read = _reader_config(config, resource == _LIST_OBJECTS, jsonata)
    config.finish()
    reader.finish()
    action = resource.partition(":")[2]
    return ItemReader(action=action, parameters=parameters, **read)


def _reader_config(config: Fields, listing: bool, jsonata: bool) -> dict[str, Any]:
    input_type = ""
    if config.has("InputType"):
        input_type = config.one_of("InputType", ("CSV", "JSON", "JSONL", "MANIFEST", "PARQUET"))
    if input_type == "PARQUET":
        config.findings.refuse("Items in Parquet files are not supported here", config.at("InputType"))
    elif not listing and not input_type:
        input_type = "JSON"
    manifest_type = config.one_of("ManifestType", ("S3_INVENTORY", "ATHENA_DATA"))
    if manifest_type == "ATHENA_DATA" and input_type not in ("CSV", "JSONL", "PARQUET", "MANIFEST"):
        config.problem("ManifestType", "ATHENA_DATA needs one of these values of InputType: [CSV, JSONL, PARQUET]")
    headers = _headers(config)
    first_row = config.one_of("CSVHeaderLocation", ("FIRST_ROW", "GIVEN")) == "FIRST_ROW"
    if not first_row and not headers:
        config.findings.error("These fields are required: [CSVHeaders]", config.location)
    if input_type == "CSV" and not config.has("CSVHeaderLocation"):
        config.findings.error("These fields are required: [CSVHeaderLocation]", config.location)
    pointer = config.string("ItemsPointer")
    if pointer and not pointer.startswith("/"):
        config.problem("ItemsPointer", "The value must be a JSON Pointer: it starts with '/'")
    keys = tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])
    reader = JsonataFields(config, "ItemReader/ReaderConfig/") if jsonata else None
    return {
        "input_type": input_type,
        "first_row": first_row,
        "headers": headers,
        "delimiter": DELIMITERS[config.one_of("CSVDelimiter", tuple(DELIMITERS))],
        "max_items": _amount(config, reader, "MaxItems"),
        "items_pointer": keys,
        "manifest_type": manifest_type if config.has("ManifestType") else "S3_INVENTORY",
        "flatten": config.one_of("Transformation", ("NONE", "LOAD_AND_FLATTEN")) == "LOAD_AND_FLATTEN",
    }


def _headers(config: Fields) -> tuple[str, ...]:
    names: list[Json] = config.array("CSVHeaders")
    if len(names) > MAX_CSV_HEADERS or not all(isinstance(name, str) for name in names):
        config.problem("CSVHeaders", "Expected value of type String")
        return ()
    return tuple(names)


def _batcher(fields: Fields, jsonata: bool) -> ItemBatcher | None:
    if not fields.has("ItemBatcher"):
        return None
    batcher = _inner(fields, "ItemBatcher")
    names = ("MaxItemsPerBatch", "MaxInputBytesPerBatch")
    reader = JsonataFields(batcher, "ItemBatcher/") if jsonata else None
    max_items, max_bytes = (_amount(batcher, reader, name, 1) for name in names)
    if not any(batcher.has(name) or batcher.has(f"{name}Path") for name in names):
        batcher.findings.error(f"One of these fields is required: [{', '.join(names)}]", batcher.location)
    batch_input = reader.template("BatchInput") if reader is not None else batcher.object_template("BatchInput")
    batcher.finish()
    return ItemBatcher(max_items, max_bytes, batch_input)


def _writer(fields: Fields, jsonata: bool) -> ResultWriter | None:
    if not fields.has("ResultWriter"):
        return None
    writer = _inner(fields, "ResultWriter")
    parameters = _parameters(writer, "ResultWriter/", jsonata)
    if writer.has("Resource"):
        _resource(writer, ("s3:putObject",))
    elif not writer.has("WriterConfig") or parameters is not None:
        writer.require("Resource")
    if writer.has("Resource") and parameters is None:
        writer.require("Arguments" if jsonata else "Parameters")
    config = _inner(writer, "WriterConfig")
    transformation = ""
    if writer.has("WriterConfig"):
        config.require("Transformation", "OutputType")
        transformation = config.one_of("Transformation", ("NONE", "COMPACT", "FLATTEN"))
    lines = config.one_of("OutputType", ("JSON", "JSONL")) == "JSONL"
    config.finish()
    writer.finish()
    return ResultWriter(parameters, transformation, lines)
