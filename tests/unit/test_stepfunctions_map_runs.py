"""Distributed Maps over a real ledger: children, map runs, results, failures, redrive, stop."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.validate import ParamValidator

from entrepot.blobs.local import LocalBlobStore
from entrepot.errors import AwsError
from entrepot.services import s3, stepfunctions
from entrepot.services.stepfunctions.maps import driver, results
from entrepot.services.stepfunctions.shapes import service_model
from tests.unit.stepfunctions_objects import Objects
from tests.unit.stepfunctions_site import ACCOUNT, ROOT, TABLES, Functions, Site, site

PASS = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
CALL = "arn:aws:lambda:us-east-1:111111111111:function:work"
TASK = {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": CALL, "End": True}}}
WRITER = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "out", "Prefix": "runs/"}}


def machine(processor: dict[str, Any] = PASS, express: bool = False, **fields: Any) -> dict[str, Any]:
    config = {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" if express else "STANDARD"}
    state = {"Type": "Map", "Label": "Each", "ItemProcessor": {"ProcessorConfig": config, **processor}, "End": True}
    return {"StartAt": "M", "States": {"M": {**state, **fields}}}


def reader(action: str = "getObject", parameters: Any = None, **config: Any) -> dict[str, Any]:
    given = {"Bucket": "in", "Key": "items"} if parameters is None else parameters
    made = {"Resource": f"arn:aws:states:::s3:{action}", "Parameters": given}
    return {**made, "ReaderConfig": config} if config else made


@asynccontextmanager
async def opened(folder: Path, functions: Functions | None = None) -> AsyncIterator[tuple[Site, Objects]]:
    objects = Objects(piece_bytes=100)
    async with site(folder, functions) as here:
        here.operations.add("s3", objects.operations())
        call = here.call

        async def checked(operation: str, /, **request: Any) -> dict[str, Any]:
            """Call, and hold the answer against AWS's model: nothing of another type, nothing unknown."""
            answer = await call(operation, **request)
            shape = service_model("stepfunctions").operation_model(operation).output_shape
            report = ParamValidator().validate(answer, shape)
            assert not report.has_errors(), report.generate_report()
            assert set(answer) <= set(shape.members), operation
            return answer

        here.call = checked  # type: ignore[method-assign]
        yield here, objects


async def run_of(here: Site, execution_arn: str) -> dict[str, Any]:
    listed = (await here.call("ListMapRuns", executionArn=execution_arn))["mapRuns"]
    return await here.call("DescribeMapRun", mapRunArn=listed[0]["mapRunArn"])


async def children(here: Site, run: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return (await here.call("ListExecutions", mapRunArn=run["mapRunArn"], **wanted))["executions"]  # type: ignore[no-any-return]


def counted(**counts: int) -> dict[str, int]:
    names = ("pending", "running", "succeeded", "failed", "timedOut", "aborted", "total", "resultsWritten")
    return {**dict.fromkeys([*names, "failuresNotRedrivable", "pendingRedrive"], 0), **counts}


@pytest.mark.parametrize("express", [False, True])
async def test_every_item_is_an_execution_of_its_own(tmp_path: Path, express: bool) -> None:
    async with opened(tmp_path) as (here, _):
        execution, history = await here.run(machine(express=express, MaxConcurrency=2), ["a", {"b": 1}, None])
        assert json.loads(execution["output"]) == ["a", {"b": 1}, None]
        assert [event["type"] for event in history][2:-2] == [
            "MapStateStarted",
            "MapRunStarted",
            "MapRunSucceeded",
            "MapStateSucceeded",
        ]
        run = await run_of(here, execution["executionArn"])
        assert history[3]["mapRunStartedEventDetails"] == {"mapRunArn": run["mapRunArn"]}
        assert run["mapRunArn"].startswith("arn:aws:states:us-east-1:111111111111:mapRun:m/Each:")
        assert (run["status"], run["maxConcurrency"]) == ("SUCCEEDED", 2)
        assert run["itemCounts"] == run["executionCounts"] == counted(succeeded=3, total=3, resultsWritten=3)
        found = await children(here, run, statusFilter="SUCCEEDED")
        kind = "express" if express else "execution"
        assert len(found) == 3 and all(f":{kind}:m/Each:" in child["executionArn"] for child in found)
        assert await children(here, run, statusFilter="FAILED") == []
        child = await here.call("DescribeExecution", executionArn=found[0]["executionArn"])
        assert (child["mapRunArn"], child["input"], child["stateMachineArn"].endswith(":m/Each")) == (
            run["mapRunArn"],
            "null",
            True,
        )
        told = await here.call("DescribeStateMachineForExecution", executionArn=found[0]["executionArn"])
        assert (told["label"], json.loads(told["definition"])) == ("Each", PASS)
        assert [one["name"] for one in (await here.call("ListStateMachines"))["stateMachines"]] == ["m"]


async def test_items_of_a_csv_file_are_selected_batched_and_their_results_written(tmp_path: Path) -> None:
    definition = machine(
        ItemReader=reader(InputType="CSV", CSVHeaderLocation="FIRST_ROW", MaxItems=5),
        ItemSelector={
            "n.$": "$$.Map.Item.Value.n",
            "i.$": "$$.Map.Item.Index",
            "who.$": "$.who",
            "s.$": "$$.Map.Item.Source",
        },
        ItemBatcher={"MaxItemsPerBatch": 2, "BatchInput": {"who.$": "$.who"}},
        ResultWriter=WRITER,
    )
    async with opened(tmp_path) as (here, objects):
        objects.contents["in/items"] = b"n,x\n" + b"".join(b"%d,x\n" % number for number in range(9))
        execution, _ = await here.run(definition, {"who": "me"})
        run = await run_of(here, execution["executionArn"])
        key = f"runs/{run['mapRunArn'].rpartition(':')[2]}/manifest.json"
        assert json.loads(execution["output"]) == {
            "MapRunArn": run["mapRunArn"],
            "ResultWriterDetails": {"Bucket": "out", "Key": key},
        }
        assert run["executionCounts"] == counted(succeeded=3, total=3, resultsWritten=3)
        assert run["itemCounts"] == counted(succeeded=5, total=5, resultsWritten=5)
        manifest = json.loads(objects.contents[f"out/{key}"])
        files = manifest["ResultFiles"]
        assert (manifest["DestinationBucket"], files["FAILED"], files["PENDING"]) == ("out", [], [])
        written = json.loads(objects.contents[f"out/{files['SUCCEEDED'][0]['Key']}"])
        assert files["SUCCEEDED"][0]["Size"] == len(objects.contents[f"out/{files['SUCCEEDED'][0]['Key']}"])
        last = json.loads(written[2]["Output"])
        assert last == {"BatchInput": {"who": "me"}, "Items": [{"n": "4", "i": 4, "who": "me", "s": "s3://in/items"}]}
        assert (written[2]["Status"], written[2]["Input"]) == ("SUCCEEDED", written[2]["Output"])


async def test_jsonata_throughout(tmp_path: Path) -> None:
    definition = {
        "QueryLanguage": "JSONata",
        **machine(
            {"StartAt": "P", "States": {"P": {"Type": "Pass", "Output": "{% $states.input.Items.v %}", "End": True}}},
            ItemReader={
                "Resource": "arn:aws:states:::s3:getObject",
                "Arguments": {"Bucket": "{% $states.input.bucket %}", "Key": "items"},
                "ReaderConfig": {
                    "InputType": "JSON",
                    "MaxItems": "{% $states.input.most %}",
                    "ItemsPointer": "/deep/list",
                },
            },
            ItemSelector={"v": "{% $states.context.Map.Item.Value * 10 %}"},
            ItemBatcher={"MaxInputBytesPerBatch": "{% 31 %}"},
            ResultWriter={"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSON"}},
            MaxConcurrency="{% 1 + 1 %}",
            Output="{% $states.result %}",
        ),
    }
    async with opened(tmp_path) as (here, objects):
        objects.contents["in/items"] = b'{"deep": {"list": [1, 2, 3, 4]}}'
        execution, _ = await here.run(definition, {"bucket": "in", "most": 3})
        assert json.loads(execution["output"]) == [10, 20, 30]


@pytest.mark.parametrize(
    ("fields", "error", "cause"),
    [
        ({"ItemReader": reader(InputType="JSON")}, "States.ItemReaderFailed", "The specified key does not exist."),
        ({"ItemReader": reader("listObjectsV2", {})}, "States.ItemReaderFailed", "Bucket"),
        ({"ItemSelector": {"a.$": "$.nothing"}}, "States.Runtime", "$.nothing"),
        ({"ResultWriter": {**WRITER, "Parameters": {"Bucket": "missing"}}}, "States.ResultWriterFailed", "bucket"),
    ],
)
async def test_what_goes_wrong_fails_the_run_and_can_be_caught(
    tmp_path: Path, fields: dict[str, Any], error: str, cause: str
) -> None:
    definition = machine(Catch=[{"ErrorEquals": [error], "Next": "Caught"}], **fields)
    definition["States"]["Caught"] = {"Type": "Pass", "End": True}
    async with opened(tmp_path) as (here, _):
        execution, history = await here.run(definition, [1, 2])
        output = json.loads(execution["output"])
        assert output["Error"] == error and cause in output["Cause"]
        failed = next(event for event in history if event["type"] == "MapRunFailed")["mapRunFailedEventDetails"]
        assert failed == {"error": error, "cause": output["Cause"]}
        assert (await run_of(here, execution["executionArn"]))["status"] == "FAILED"


def refusing(*refused: Any) -> Functions:
    functions = Functions()
    functions.refused = list(refused)  # type: ignore[attr-defined]

    def work(event: Any) -> Any:
        if event in functions.refused:  # type: ignore[attr-defined]
            raise ValueError(f"{event} is refused")
        return event

    functions.handlers["work"] = work
    return functions


@pytest.mark.parametrize(
    ("tolerated", "status"),
    [
        ({}, "FAILED"),
        ({"ToleratedFailureCount": 1}, "FAILED"),
        ({"ToleratedFailureCount": 2}, "SUCCEEDED"),
        ({"ToleratedFailurePercentage": 19.9}, "FAILED"),
        ({"ToleratedFailurePercentage": 20}, "SUCCEEDED"),
        ({"ToleratedFailureCountPath": "$[0]", "ItemsPath": "$"}, "FAILED"),
    ],
)
async def test_tolerated_failures(tmp_path: Path, tolerated: dict[str, Any], status: str) -> None:
    async with opened(tmp_path, refusing(3, 4)) as (here, _):
        execution, _ = await here.run(machine(TASK, **tolerated), list(range(10)))
        assert execution["status"] == status
        run = await run_of(here, execution["executionArn"])
        if status == "FAILED":
            assert execution["error"] == "States.ExceedToleratedFailureThreshold"
            assert execution["cause"] == "The specified tolerated failure threshold was exceeded"
            return
        assert run["executionCounts"] == counted(succeeded=8, failed=2, total=10, resultsWritten=10)
        output = json.loads(execution["output"])
        assert [output[0], output[9]] == [0, 9]
        assert (output[3]["Status"], output[3]["Error"], output[3]["Input"]) == ("FAILED", "ValueError", "3")


@pytest.mark.parametrize("express", [False, True])
async def test_a_redrive_runs_what_did_not_succeed(tmp_path: Path, express: bool) -> None:
    functions = refusing(2)
    async with opened(tmp_path, functions) as (here, objects):
        definition = machine(TASK, express, MaxConcurrency=1, ResultWriter=WRITER)
        execution, _ = await here.run(definition, [1, 2, 3])
        arn = execution["executionArn"]
        assert execution["status"] == "FAILED"
        run = await run_of(here, arn)
        assert run["executionCounts"]["pending"] == 1
        folder = f"out/runs/{run['mapRunArn'].rpartition(':')[2]}"
        assert json.loads(objects.contents[f"{folder}/FAILED_0.json"])[0]["Error"] == "ValueError"
        assert json.loads(objects.contents[f"{folder}/PENDING_0.json"])[0]["Input"] == "3"
        if not express:
            failed = (await children(here, run, statusFilter="FAILED"))[0]["executionArn"]
            assert (await here.call("DescribeExecution", executionArn=failed))[
                "redriveStatus"
            ] == "REDRIVABLE_BY_MAP_RUN"
            with pytest.raises(AwsError, match="map run"):
                await here.call("RedriveExecution", executionArn=failed)
        functions.refused.clear()  # type: ignore[attr-defined]
        await here.call("RedriveExecution", executionArn=arn)
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
        again = await run_of(here, arn)
        assert (again["mapRunArn"], again["redriveCount"], again["status"]) == (run["mapRunArn"], 1, "SUCCEEDED")
        assert again["itemCounts"] == counted(succeeded=3, total=3, resultsWritten=3)
        assert "MapRunRedriven" in await here.event_types(arn)
        assert sorted(event for _, event, _ in functions.invoked) == [1, 2, 2, 3]
        redriven = await children(here, again, redriveFilter="REDRIVEN")
        assert len(redriven) == (0 if express else 1)


async def test_a_redrive_goes_on_reading_and_writing(tmp_path: Path) -> None:
    """What failed in the reader or the writer is done again; children that succeeded are not run again."""
    functions = refusing()
    definition = machine(
        TASK, ItemReader=reader(InputType="JSON"), ResultWriter={**WRITER, "Parameters": {"Bucket.$": "$.to"}}
    )
    async with opened(tmp_path, functions) as (here, objects):
        objects.refused.add("out")
        execution, _ = await here.run(definition, {"to": "out"})
        arn = execution["executionArn"]
        assert execution["error"] == "States.ItemReaderFailed"
        objects.contents["in/items"] = b"[1, 2]"
        await here.call("RedriveExecution", executionArn=arn)
        assert (await here.ended(arn))["error"] == "States.ResultWriterFailed"
        objects.refused.clear()
        await here.call("RedriveExecution", executionArn=arn)
        assert (await here.ended(arn))["status"] == "SUCCEEDED"
        run = await run_of(here, arn)
        assert (run["redriveCount"], run["itemCounts"]) == (2, counted(succeeded=2, total=2, resultsWritten=2))
        assert sorted(event for _, event, _ in functions.invoked) == [1, 2]


async def test_a_time_out_ends_maps_inside_of_maps(tmp_path: Path) -> None:
    forever = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1_000, "End": True}}}
    inner = {"StartAt": "Inner", "States": {"Inner": machine(forever)["States"]["M"]}}
    async with opened(tmp_path) as (here, _):
        execution, history = await here.run({**machine(inner), "TimeoutSeconds": 1}, [[1, 2]])
        assert execution["status"] == "TIMED_OUT"
        assert [event["type"] for event in history][-2:] == ["MapRunAborted", "ExecutionTimedOut"]

        def statuses(reader: Any) -> set[tuple[str, str]]:
            return set(
                reader.all("SELECT m.name, e.status FROM execution e JOIN state_machine m ON m.id = e.state_machine_id")
            )

        async with asyncio.timeout(10):
            while ("m/Each/Each", "ABORTED") not in (found := await here.database.read(statuses)):
                await asyncio.sleep(0.01)
        assert found == {("m", "TIMED_OUT"), ("m/Each", "ABORTED"), ("m/Each/Each", "ABORTED")}
        assert await here.database.read(lambda reader: reader.all("SELECT status FROM map_run")) == [("ABORTED",)] * 2


async def test_a_stop_aborts_the_children(tmp_path: Path) -> None:
    forever = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1_000, "End": True}}}
    async with opened(tmp_path) as (here, _):
        arn = await here.begin(await here.create("m", machine(forever, MaxConcurrency=3)), list(range(5)))

        async def until(test: Any) -> dict[str, Any]:
            async with asyncio.timeout(15):
                while True:
                    found = await here.call("ListMapRuns", executionArn=arn)
                    run = await run_of(here, arn) if found["mapRuns"] else {"executionCounts": counted()}
                    if test(run["executionCounts"]):
                        return run
                    await asyncio.sleep(0.01)

        await until(lambda counts: counts["running"] == 3)
        await here.call("UpdateMapRun", mapRunArn=(await run_of(here, arn))["mapRunArn"], maxConcurrency=4)
        await until(lambda counts: counts["running"] == 4)
        await here.call("StopExecution", executionArn=arn)
        run = await until(lambda counts: counts["aborted"] == 4)
        assert (run["status"], run["executionCounts"]["pending"]) == ("ABORTED", 1)
        assert {child["status"] for child in await children(here, run)} == {"ABORTED"}
        assert (await here.event_types(arn))[-2:] == ["MapRunAborted", "ExecutionAborted"]
        with pytest.raises(AwsError, match="ABORTED"):
            await here.call("UpdateMapRun", mapRunArn=run["mapRunArn"], maxConcurrency=4)


async def test_no_more_children_run_at_once_than_may_while_the_reader_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "READ_AHEAD_CHILDREN", 4)
    monkeypatch.setattr(driver, "FILL_CHILDREN", 3)
    functions, running, most = Functions(), 0, 0

    async def work(event: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return event["n"]

    functions.handlers["work"] = work
    async with opened(tmp_path, functions) as (here, objects):
        objects.contents["in/items"] = b"n\n" + b"".join(b"%d\n" % number for number in range(40))
        source = reader(InputType="CSV", CSVHeaderLocation="FIRST_ROW")
        execution, _ = await here.run(machine(TASK, ItemReader=source, MaxConcurrency=3), {})
        assert json.loads(execution["output"]) == [str(number) for number in range(40)]
        assert most == 3
        assert len([name for name, _ in objects.asked if name == "GetObject"]) == 1


async def test_a_listing_of_objects_and_the_items_inside_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as (here, objects):
        objects.contents |= {f"in/a/{number}": json.dumps([number, -number]).encode() for number in range(5)}
        listing = {"Bucket": "in", "Prefix": "a/"}
        selector = {"ItemSelector": {"key.$": "$$.Map.Item.Value.Key"}}
        execution, _ = await here.run(machine(ItemReader=reader("listObjectsV2", listing), **selector), {}, "one")
        assert [item["key"] for item in json.loads(execution["output"])] == [f"a/{number}" for number in range(5)]
        flat = reader("listObjectsV2", listing, InputType="JSON", Transformation="LOAD_AND_FLATTEN")
        execution, _ = await here.run(machine(ItemReader=flat), {}, "two")
        assert json.loads(execution["output"]) == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


async def test_an_object_is_mapped_over_by_its_members_and_maps_nest(tmp_path: Path) -> None:
    inner = machine(ItemSelector={"k.$": "$$.Map.Item.Key", "v.$": "$$.Map.Item.Value"})
    inner = {"StartAt": "Inner", "States": {"Inner": inner["States"]["M"]}}
    async with opened(tmp_path) as (here, _):
        execution, _ = await here.run(
            machine(json.loads(json.dumps(inner).replace('"P"', '"Q"'))), [{"a": 1, "b": 2}, {}]
        )
        assert json.loads(execution["output"]) == [[{"k": "a", "v": 1}, {"k": "b", "v": 2}], []]


@pytest.mark.parametrize(("transformation", "first"), [("COMPACT", [0, 0]), ("FLATTEN", 0), ("NONE", None)])
async def test_results_go_into_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transformation: str, first: Any
) -> None:
    monkeypatch.setattr(results, "PAGE", 3)
    monkeypatch.setattr(results, "FILE_LIMIT_BYTES", 10)
    writer = {**WRITER, "WriterConfig": {"Transformation": transformation, "OutputType": "JSONL"}}
    async with opened(tmp_path) as (here, objects):
        execution, _ = await here.run(machine(ResultWriter=writer), [[number, number] for number in range(10)])
        manifest = json.loads(objects.contents[f"out/{json.loads(execution['output'])['ResultWriterDetails']['Key']}"])
        files = [objects.contents[f"out/{file['Key']}"] for file in manifest["ResultFiles"]["SUCCEEDED"]]
        assert len(files) > 1
        lines = [json.loads(line) for line in b"".join(files).splitlines()]
        assert len(lines) == (20 if transformation == "FLATTEN" else 10)
        assert lines[0] == first if first is not None else lines[0]["Output"] == "[0,0]"


@pytest.mark.parametrize(
    ("action", "error"), [("s3:GetObject", "States.ItemReaderFailed"), ("s3:PutObject", "States.ResultWriterFailed")]
)
async def test_the_role_needs_its_rights_on_the_buckets(tmp_path: Path, action: str, error: str) -> None:
    async with opened(tmp_path) as (here, objects):
        objects.contents["in/items"] = b"[1]"
        here.denied.add(action)
        execution, _ = await here.run(machine(ItemReader=reader(InputType="JSON"), ResultWriter=WRITER), {})
        assert execution["error"] == error
        assert f"is not authorized to perform: {action}" in execution["cause"]


async def test_results_that_are_too_large_fail_the_run(tmp_path: Path) -> None:
    functions = Functions()
    functions.handlers["work"] = lambda event: "x" * 100_000
    async with opened(tmp_path, functions) as (here, _):
        execution, _ = await here.run(machine(TASK), [1, 2, 3])
        assert (execution["status"], execution["error"]) == ("FAILED", "States.DataLimitExceeded")


async def test_the_real_s3_is_read_and_written(tmp_path: Path) -> None:
    """Over the gate to the service itself: large objects in pieces, gzip, the listing, the files of results."""
    rows = b"".join(b'{"n": %d, "text": "%s"}\n' % (number, b"x" * 50) for number in range(300))
    async with site(tmp_path) as here:
        here.database.migrate([*stepfunctions.MIGRATIONS, TABLES, *s3.MIGRATIONS])
        blobs = LocalBlobStore(tmp_path / "store", inline_limit_bytes=1_000)
        service = s3.S3(here.database, blobs, ACCOUNT, on_object_created=_ignore, on_object_deleted=_ignore)
        here.operations.add("s3", s3.operations(service, here.operations.require))
        await here.database.write(lambda tx: (s3.buckets.create(tx, "source"), s3.buckets.create(tx, "out")))
        for key, content in (("rows.jsonl", rows), ("rows.jsonl.gz", gzip.compress(rows)), ("small", b'"s"')):
            await here.operations.perform("s3", "PutObject", {"Bucket": "source", "Key": key, "Body": content}, ROOT)
        for number, key in enumerate(("rows.jsonl", "rows.jsonl.gz")):
            source = reader(parameters={"Bucket": "source", "Key": key}, InputType="JSONL")
            definition = machine(ItemReader=source, ItemBatcher={"MaxItemsPerBatch": 100}, ResultWriter=WRITER)
            execution, _ = await here.run(definition, {}, f"rows-{number}")
            key = json.loads(execution["output"])["ResultWriterDetails"]["Key"]
            got = await here.operations.perform("s3", "GetObject", {"Bucket": "out", "Key": key}, ROOT)
            assert len(json.loads(got["Body"])["ResultFiles"]["SUCCEEDED"]) == 1
            assert (await run_of(here, execution["executionArn"]))["itemCounts"]["succeeded"] == 300
        execution, _ = await here.run(machine(ItemReader=reader("listObjectsV2", {"Bucket": "source"})), {}, "listed")
        listed = json.loads(execution["output"])
        assert [item["Key"] for item in listed] == ["rows.jsonl", "rows.jsonl.gz", "small"]
        assert all(set(item) == {"Etag", "Key", "LastModified", "Size", "StorageClass"} for item in listed)
        await service.stop()
        await blobs.close()


def _ignore(*_: Any) -> None:
    """Nobody is told of objects here."""
