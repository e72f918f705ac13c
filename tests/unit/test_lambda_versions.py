"""Versions, aliases, qualifiers, code from S3, layers, tags and provisioned concurrency, through the gate."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.services.lambda_ import runtimes
from tests.unit.lambda_site import ARN, Site, archive, code, site

Answer = dict[str, Any]


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        yield made


async def test_versions_are_unchangeable_copies(at: Site) -> None:
    await at.create(Environment={"Variables": {"STAGE": "one"}})
    first = await at.do("PublishVersion", FunctionName="demo", Description="the first")
    assert (first["Version"], first["FunctionArn"], first["Description"]) == ("1", ARN + ":1", "the first")
    assert (await at.do("PublishVersion", FunctionName="demo"))["Version"] == "1", "nothing has changed"
    await at.do("UpdateFunctionConfiguration", FunctionName="demo", Environment={"Variables": {"STAGE": "two"}})
    second = await at.do("UpdateFunctionCode", FunctionName="demo", Publish=True, **code("2"))
    assert (second["Version"], second["FunctionArn"]) == ("2", ARN + ":2")
    again = await at.do("GetFunctionConfiguration", FunctionName="demo", Qualifier="1")
    assert again["Environment"] == {"Variables": {"STAGE": "one"}} and again["CodeSha256"] == first["CodeSha256"]
    listed = await at.do("ListVersionsByFunction", FunctionName="demo", MaxItems=2)
    assert [v["Version"] for v in listed["Versions"]] == ["$LATEST", "1"]
    assert listed["Versions"][0]["FunctionArn"] == ARN + ":$LATEST"
    rest = await at.do("ListVersionsByFunction", FunctionName="demo", Marker=listed["NextMarker"])
    assert [v["Version"] for v in rest["Versions"]] == ["2"] and "NextMarker" not in rest
    everything = await at.do("ListFunctions", FunctionVersion="ALL")
    assert [f["FunctionArn"] for f in everything["Functions"]] == [ARN + ":$LATEST", ARN + ":1", ARN + ":2"]
    await at.do("DeleteFunction", FunctionName="demo", Qualifier="2")
    assert await at.code_of("GetFunction", FunctionName="demo:2") == "ResourceNotFoundException"
    await at.do("UpdateFunctionCode", FunctionName="demo", **code("3"))
    assert (await at.do("PublishVersion", FunctionName="demo"))["Version"] == "3", "numbers are not used again"


async def test_publishing_under_conditions(at: Site) -> None:
    created = await at.create()
    stale = {"FunctionName": "demo", "RevisionId": "another"}
    assert await at.code_of("PublishVersion", **stale) == "PreconditionFailedException"
    assert await at.code_of("PublishVersion", FunctionName="demo", CodeSha256="x") == "InvalidParameterValueException"
    published = await at.do("PublishVersion", FunctionName="demo", CodeSha256=created["CodeSha256"])
    assert published["Version"] == "1"
    assert await at.code_of("UpdateFunctionCode", FunctionName="demo:1", **code()) == "InvalidParameterValueException"
    dry = await at.do("UpdateFunctionCode", FunctionName="demo", DryRun=True, **code("2"))
    assert dry["CodeSha256"] != created["CodeSha256"]
    assert (await at.do("GetFunctionConfiguration", FunctionName="demo"))["CodeSha256"] == created["CodeSha256"]
    assert (await at.create("other", Publish=True))["Version"] == "1"


async def test_aliases_name_versions_and_share_between_two(at: Site) -> None:
    await at.create(Publish=True)
    await at.do("UpdateFunctionCode", FunctionName="demo", Publish=True, **code("2"))
    alias = await at.do("CreateAlias", FunctionName="demo", Name="live", FunctionVersion="1")
    assert (alias["AliasArn"], alias["FunctionVersion"]) == (ARN + ":live", "1")
    same = {"FunctionName": "demo", "Name": "live", "FunctionVersion": "1"}
    assert await at.code_of("CreateAlias", **same) == "ResourceConflictException"
    assert await at.code_of("CreateAlias", **same | {"Name": "7"}) == "ValidationException"
    lost = same | {"Name": "b", "FunctionVersion": "9"}
    assert await at.code_of("CreateAlias", **lost) == "ResourceNotFoundException"
    assert await at.code_of("GetAlias", FunctionName="demo", Name="b") == "ResourceNotFoundException"
    assert await at.code_of("DeleteFunction", FunctionName="demo", Qualifier="1") == "ResourceConflictException"
    answer = await at.do("Invoke", FunctionName="demo:live", Payload=b"1")
    assert answer["ExecutedVersion"] == "1" and at.invocations == [("1", ARN + ":live", 1)]

    half = {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}}
    changed = await at.do("UpdateAlias", FunctionName="demo", Name="live", RevisionId=alias["RevisionId"], **half)
    assert changed["RoutingConfig"] == half["RoutingConfig"] and changed["RevisionId"] != alias["RevisionId"]
    stale = {"FunctionName": "demo", "Name": "live", "RevisionId": alias["RevisionId"]}
    assert await at.code_of("UpdateAlias", **stale) == "PreconditionFailedException"
    at.invocations.clear()
    for _ in range(60):
        await at.do("Invoke", FunctionName=ARN + ":live", Payload=b"1")
    shares = Counter(version for version, _, _ in at.invocations)
    assert set(shares) == {"1", "2"} and min(shares.values()) > 5

    await at.do("UpdateAlias", FunctionName="demo", Name="live", FunctionVersion="2", RoutingConfig={})
    assert (await at.do("Invoke", FunctionName="demo", Qualifier="live", Payload=b"1"))["ExecutedVersion"] == "2"
    await at.do("CreateAlias", FunctionName="demo", Name="beta", FunctionVersion="$LATEST")
    listed = await at.do("ListAliases", FunctionName="demo")
    assert [a["Name"] for a in listed["Aliases"]] == ["beta", "live"]
    assert [a["Name"] for a in (await at.do("ListAliases", FunctionName="demo", FunctionVersion="2"))["Aliases"]] == [
        "live"
    ]
    await at.do("DeleteAlias", FunctionName="demo", Name="live")
    assert await at.code_of("Invoke", FunctionName="demo:live") == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "routing", [{"1": 0.5}, {"2": 1.5}, {"2": 0.1, "3": 0.1}, {"$LATEST": 0.1}, {"x": 0.1}], ids=str
)
async def test_weights_that_are_refused(at: Site, routing: dict[str, float]) -> None:
    await at.create(Publish=True)
    await at.do("UpdateFunctionCode", FunctionName="demo", Publish=True, **code("2"))
    request = {"FunctionName": "demo", "Name": "a", "FunctionVersion": "1"}
    refused = await at.code_of("CreateAlias", **request, RoutingConfig={"AdditionalVersionWeights": routing})
    assert refused in ("InvalidParameterValueException", "ValidationException")
    assert (await at.do("ListAliases", FunctionName="demo"))["Aliases"] == [], "refused without a trace"


async def test_qualifiers_in_names_and_what_iam_is_asked(at: Site) -> None:
    await at.create(Publish=True)
    await at.do("CreateAlias", FunctionName="demo", Name="live", FunctionVersion="1")
    assert await at.code_of("Invoke", FunctionName="demo:1", Qualifier="live") == "InvalidParameterValueException"
    at.asked.clear()
    for name, arn in (("demo", ARN), ("demo:1", ARN + ":1"), (ARN + ":live", ARN + ":live")):
        await at.do("Invoke", FunctionName=name, Payload=b"{}")
        assert at.asked[-1] == ("root", "lambda:InvokeFunction", arn)
        assert at.invocations[-1][1] == arn
    found = await at.do("GetFunction", FunctionName="demo", Qualifier="live")
    assert (found["Configuration"]["FunctionArn"], found["Configuration"]["Version"]) == (ARN + ":live", "1")


async def test_code_from_a_bucket(at: Site) -> None:
    at.objects["code", "demo.zip", None] = archive(("handler.py", b"1"))
    at.objects["code", "demo.zip", "v2"] = archive(("handler.py", b"2"))
    created = await at.create(Code={"S3Bucket": "code", "S3Key": "demo.zip"})
    updated = await at.do(
        "UpdateFunctionCode", FunctionName="demo", S3Bucket="code", S3Key="demo.zip", S3ObjectVersion="v2"
    )
    assert created["CodeSha256"] != updated["CodeSha256"]
    assert (await at.create("same", "2"))["CodeSha256"] == updated["CodeSha256"]
    both = {"S3Bucket": "code", "S3Key": "demo.zip", **code()}
    assert await at.code_of("UpdateFunctionCode", FunctionName="demo", **both) == "InvalidParameterValueException"
    assert await at.code_of("UpdateFunctionCode", FunctionName="demo", S3Bucket="c") == "InvalidParameterValueException"


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def layer(at: Site, name: str, *files: tuple[str, bytes], **members: Any) -> Answer:
    return await at.do("PublishLayerVersion", LayerName=name, Content={"ZipFile": archive(*files)}, **members)


async def test_layers_from_publication_to_deletion(at: Site) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:layer:tools"
    first = await layer(at, "tools", ("python/a.py", b"1"), CompatibleRuntimes=["python3.12"], LicenseInfo="MIT")
    assert (first["Version"], first["LayerArn"], first["LayerVersionArn"]) == (1, arn, arn + ":1")
    second = await layer(at, arn, ("python/a.py", b"2"), Description="better")
    assert second["Version"] == 2
    got = await at.do("GetLayerVersionByArn", Arn=arn + ":1")
    assert got == await at.do("GetLayerVersion", LayerName="tools", VersionNumber=1)
    assert got["LicenseInfo"] == "MIT" and got["Content"]["CodeSize"] == first["Content"]["CodeSize"]
    assert [v["Version"] for v in (await at.do("ListLayerVersions", LayerName="tools"))["LayerVersions"]] == [2, 1]
    listed = (await at.do("ListLayers"))["Layers"]
    assert [(entry["LayerName"], entry["LatestMatchingVersion"]["Version"]) for entry in listed] == [("tools", 2)]
    await at.do("DeleteLayerVersion", LayerName="tools", VersionNumber=2)
    missing = {"LayerName": "tools", "VersionNumber": 2}
    assert await at.code_of("GetLayerVersion", **missing) == "ResourceNotFoundException"
    assert (await layer(at, "tools", ("python/a.py", b"3")))["Version"] == 3, "numbers are not used again"


async def test_layers_lie_over_each_other_in_order(at: Site) -> None:
    one = await layer(at, "one", ("python/a.py", b"one"), ("python/b.py", b"one"), ("bin/tool", b"x"))
    two = await layer(at, "two", ("python/a.py", b"two"), ("python/lib/python3.12/site-packages/c.py", b"two"))
    created = await at.create(Layers=[one["LayerVersionArn"], two["LayerVersionArn"]])
    assert [entry["Arn"] for entry in created["Layers"]] == [one["LayerVersionArn"], two["LayerVersionArn"]]
    assert all(entry["CodeSize"] > 0 for entry in created["Layers"])
    function = await at.database.read(lambda reader: at.lambda_.find(reader, "demo"))
    assert function is not None
    merged = at.lambda_.code / function.layers_folder
    assert [(merged / "python" / name).read_text() for name in ("a.py", "b.py")] == ["two", "one"]
    variables = runtimes.layer_variables("python3.12", merged, {"PYTHONPATH": "own", "PATH": "/bin"}, str(merged))
    assert variables["PYTHONPATH"].split(":") == [
        "own", str(merged / "python/lib/python3.12/site-packages"), str(merged / "python"),
    ]  # fmt: skip
    assert variables["PATH"] == f"/bin:{merged / 'bin'}" and "NODE_PATH" not in variables
    await at.do("DeleteLayerVersion", LayerName="one", VersionNumber=1)
    await at.do("UpdateFunctionConfiguration", FunctionName="demo", MemorySize=256)
    assert len((await at.do("GetFunctionConfiguration", FunctionName="demo"))["Layers"]) == 2, "it keeps what it has"
    cleared = await at.do("UpdateFunctionConfiguration", FunctionName="demo", Layers=[])
    assert "Layers" not in cleared


async def test_layers_that_are_refused(at: Site) -> None:
    arns = [(await layer(at, f"l{n}", ("x", b"x")))["LayerVersionArn"] for n in range(6)]
    again = (await layer(at, "l0", ("x", b"y")))["LayerVersionArn"]
    file_and_folder = (await layer(at, "folder", ("x/y", b"y")))["LayerVersionArn"]
    for layers in (arns, [arns[0], again], [arns[0][:-1] + "9"], [arns[0], file_and_folder]):
        refused = await at.code_of("CreateFunction", **_create(layers))
        assert refused == "InvalidParameterValueException", layers
    assert await at.code_of("CreateFunction", **_create(["nonsense"])) == "ValidationException"
    nothing: Answer = {"LayerName": "x", "Content": {}}
    assert await at.code_of("PublishLayerVersion", **nothing) == "InvalidParameterValueException"
    hostile = {"LayerName": "x", "Content": {"ZipFile": archive(("../x", b""))}}
    assert await at.code_of("PublishLayerVersion", **hostile) == "InvalidParameterValueException"


def _create(layers: list[str]) -> Answer:
    return {
        "FunctionName": "demo", "Runtime": "python3.12", "Role": "arn:aws:iam::000000000000:role/demo",
        "Handler": "handler.run", "Code": code(), "Layers": layers,
    }  # fmt: skip


# ── what hangs on functions ──────────────────────────────────────────────────────────────────────────────────────────


async def test_tags_and_account_settings(at: Site) -> None:
    created = await at.create(Tags={"team": "files"})
    await at.do("TagResource", Resource=ARN, Tags={"stage": "test"})
    assert (await at.do("ListTags", Resource=ARN))["Tags"] == {"team": "files", "stage": "test"}
    await at.do("UntagResource", Resource=ARN, TagKeys=["team"])
    assert (await at.do("GetFunction", FunctionName="demo"))["Tags"] == {"stage": "test"}
    assert await at.code_of("TagResource", Resource=ARN + ":1", Tags={"a": "b"}) == "ValidationException"
    assert await at.code_of("TagResource", Resource=ARN, Tags={"aws:x": "b"}) == "InvalidParameterValueException"
    settings = await at.do("GetAccountSettings")
    assert settings["AccountUsage"] == {"FunctionCount": 1, "TotalCodeSize": created["CodeSize"]}


async def test_provisioned_concurrency_is_the_pools_minimum(at: Site) -> None:
    await at.create(Publish=True)
    await at.do("CreateAlias", FunctionName="demo", Name="live", FunctionVersion="1")
    warm: dict[str, int] = {}
    at.lambda_.pool.configure = lambda c: warm.update({c.key: c.minimum_warm})  # type: ignore[method-assign]
    put = "PutProvisionedConcurrencyConfig"
    for qualifier in ("1", "live"):
        answer = await at.do(put, FunctionName="demo", Qualifier=qualifier, ProvisionedConcurrentExecutions=1)
        assert (answer["RequestedProvisionedConcurrentExecutions"], answer["Status"]) == (1, "IN_PROGRESS")
    assert warm == {"demo": 0, "demo:1": 2}
    over = {"FunctionName": "demo", "Qualifier": "1", "ProvisionedConcurrentExecutions": 10_000}
    assert await at.code_of(put, **over) == "InvalidParameterValueException"
    latest = over | {"Qualifier": "$LATEST", "ProvisionedConcurrentExecutions": 1}
    assert await at.code_of(put, **latest) == "InvalidParameterValueException"
    listed = await at.do("ListProvisionedConcurrencyConfigs", FunctionName="demo")
    assert [entry["FunctionArn"] for entry in listed["ProvisionedConcurrencyConfigs"]] == [ARN + ":1", ARN + ":live"]
    small = {"FunctionName": "demo", "ReservedConcurrentExecutions": 1}
    assert await at.code_of("PutFunctionConcurrency", **small) == "InvalidParameterValueException"
    await at.do("UpdateFunctionCode", FunctionName="demo", Publish=True, **code("2"))
    await at.do("UpdateAlias", FunctionName="demo", Name="live", FunctionVersion="2")
    assert warm == {"demo": 0, "demo:1": 1, "demo:2": 1}, "the alias takes its workers along"
    await at.do("DeleteProvisionedConcurrencyConfig", FunctionName="demo", Qualifier="1")
    assert warm["demo:1"] == 0
    missing = {"FunctionName": "demo", "Qualifier": "1"}
    assert await at.code_of("GetProvisionedConcurrencyConfig", **missing) == (
        "ProvisionedConcurrencyConfigNotFoundException"
    )


async def test_the_concurrency_alone_keeps_the_revision(at: Site) -> None:
    created = await at.create()
    await at.do("PutFunctionConcurrency", FunctionName="demo", ReservedConcurrentExecutions=2)
    assert (await at.do("GetFunctionConfiguration", FunctionName="demo"))["RevisionId"] == created["RevisionId"]
    assert (await at.do("GetFunctionConcurrency", FunctionName="demo")) == {"ReservedConcurrentExecutions": 2}


async def test_what_a_start_reads(at: Site) -> None:
    await at.create(Publish=True)
    await at.do("CreateAlias", FunctionName="demo", Name="live", FunctionVersion="1")
    await at.do("PutProvisionedConcurrencyConfig", FunctionName="demo", Qualifier="live",
                ProvisionedConcurrentExecutions=2)  # fmt: skip
    known = (await at.database.scan(at.make()._load))["demo"]
    assert known.choose("live") == "1" and known.choose("") == "$LATEST"
    assert known.versions["1"].minimum_warm == 2
    used = await at.database.scan(at.lambda_._used_code)
    folders = {path.name for path in at.lambda_.code.iterdir()}
    assert folders <= used, "nothing that a version needs is swept away"
    assert json.loads((await at.do("Invoke", FunctionName="demo:live", Payload=b"[1]"))["Payload"]) == [1]


async def test_permissions_of_layers_are_kept_and_shown(at: Site) -> None:
    await layer(at, "tools", ("x", b"x"))
    request = {"LayerName": "tools", "VersionNumber": 1}
    add = request | {"StatementId": "all", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    assert await at.code_of("GetLayerVersionPolicy", **request) == "ResourceNotFoundException"
    added = json.loads((await at.do("AddLayerVersionPermission", **add))["Statement"])
    assert added["Resource"].endswith(":layer:tools:1") and added["Principal"] == "*"
    assert await at.code_of("AddLayerVersionPermission", **add) == "ResourceConflictException"
    other = add | {"StatementId": "x", "Action": "lambda:Invoke"}
    assert await at.code_of("AddLayerVersionPermission", **other) == "ValidationException"
    policy = await at.do("GetLayerVersionPolicy", **request)
    assert json.loads(policy["Policy"])["Statement"] == [added]
    stale = request | {"StatementId": "all", "RevisionId": "x"}
    assert await at.code_of("RemoveLayerVersionPermission", **stale) == "PreconditionFailedException"
    await at.do("RemoveLayerVersionPermission", **request, StatementId="all")
    assert await at.code_of("GetLayerVersionPolicy", **request) == "ResourceNotFoundException"


async def test_what_tools_ask_of_every_function(at: Site) -> None:
    await at.create()
    assert (await at.do("GetFunctionCodeSigningConfig", FunctionName="demo"))["CodeSigningConfigArn"] == ""
    assert (await at.do("GetRuntimeManagementConfig", FunctionName="demo"))["UpdateRuntimeOn"] == "Auto"
    assert (await at.do("GetFunctionRecursionConfig", FunctionName="demo"))["RecursiveLoop"] == "Allow"
    assert await at.code_of("GetFunctionCodeSigningConfig", FunctionName="nobody") == "ResourceNotFoundException"


async def test_every_page_of_a_listing_follows_the_last(at: Site) -> None:
    names = [f"f{number}" for number in range(7)]
    for name in names:
        await at.create(name)
    for version in (None, "ALL"):
        found: list[str] = []
        marker: Answer = {}
        while True:
            asked = {"MaxItems": 3, **({"FunctionVersion": version} if version else {}), **marker}
            answer = await at.do("ListFunctions", **asked)
            found += [function["FunctionName"] for function in answer["Functions"]]
            if "NextMarker" not in answer:
                break
            marker = {"Marker": answer["NextMarker"]}
        assert found == names
    assert await at.code_of("ListFunctions", MaxItems=0) == "ValidationException"
