"""The console's pages of expectations, as a browser without scripts gets them."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.running import Stack, wait_for

EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def test_expectations_have_a_list_and_a_calendar(tmp_path: Path) -> None:
    with Stack(tmp_path / "stack") as stack:
        console = json.loads((stack.folder / "data" / "run.json").read_text())["console"]

        def get(path: str) -> str:
            with urllib.request.urlopen(f"{console}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        assert "Nothing is expected" in get("/expectations")
        entrepot = stack.client("entrepot")
        now = datetime.now(UTC)
        soon, later = now + timedelta(seconds=5), now + timedelta(minutes=30)
        entrepot.put_expectation(name="missed", key_pattern="demo/m-*.csv", by=f"{soon:%H:%M:%S}", days=EVERY_DAY)
        entrepot.put_expectation(
            name="met",
            key_pattern="demo/a-*.csv",
            by=f"{later:%H:%M}",
            days=EVERY_DAY,
            description="<script>x</script>",
        )
        stack.client("s3").put_object(Bucket="my-source-sftp-bucket", Key="demo/a-1.csv", Body=b"a,b\n")
        page = wait_for(lambda: page if "status-missing" in (page := get("/expectations")) else None, what="the miss")
        assert page.index("missed") < page.index(">met<"), "what needs somebody comes first"
        assert "status-arrived" in page and "demo/a-*.csv" in page
        fragment = get("/fragments/expectations")
        assert "status-missing" in fragment and "<html" not in fragment

        page = get("/expectations/met")
        file_id = entrepot.get_expectation(name="met")["outcomes"][0]["file_id"]
        assert f'href="/files/{file_id}"' in page and "every day" in page and "Calendar" in page
        assert "<script>x" not in page and "&lt;script&gt;x" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/expectations/none")
